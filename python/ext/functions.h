/* The functions of the module. */
#ifndef WEIR_EXT_FUNCTIONS_H
#define WEIR_EXT_FUNCTIONS_H

#include "core.h"

extern PyMethodDef core_functions[];

#endif
