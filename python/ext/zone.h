/* Time zones of calendar windows. */
#ifndef WEIR_EXT_ZONE_H
#define WEIR_EXT_ZONE_H

#include "core.h"

/* _core._make_zone(name, offsets): a capsule with a zone. */
PyObject *core_make_zone(PyObject *module, PyObject *args);

/*
 * The zone of tz=…, a str, a tzinfo or None; NULL is UTC. It is never freed. 0, or -1 with an
 * exception.
 */
int core_zone_of(PyObject *tz, const struct weir_zone **zone);

#endif
