/* The Python type RemoteAddress, the default key function of weir.flask. */
#ifndef WEIR_EXT_FLASK_ADDRESS_H
#define WEIR_EXT_FLASK_ADDRESS_H

#include "core.h"

extern PyType_Spec core_address_spec;

#endif
