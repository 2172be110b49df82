/* The Python type PreparedCheck. */
#ifndef WEIR_EXT_PREPARED_TYPE_H
#define WEIR_EXT_PREPARED_TYPE_H

#include "core.h"

extern PyType_Spec core_prepared_spec;

#endif
