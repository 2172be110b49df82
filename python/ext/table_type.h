/* The Python type Table. */
#ifndef WEIR_EXT_TABLE_TYPE_H
#define WEIR_EXT_TABLE_TYPE_H

#include "core.h"

extern PyType_Spec core_table_spec;

#endif
