/* StateRequest and state_request(). */
#ifndef WEIR_EXT_STATE_CODEC_H
#define WEIR_EXT_STATE_CODEC_H

#include "core.h"

/* Adds them to the module. 0, or -1 with an exception set. */
int state_init(PyObject *module);

#endif
