/* The Python type RequestHooks, the request hooks of weir.flask. */
#ifndef WEIR_EXT_FLASK_HOOKS_H
#define WEIR_EXT_FLASK_HOOKS_H

#include "core.h"

extern PyType_Spec core_hooks_spec;

#endif
