/*
 * Tables whose file is truncated while a call reads it. The kernel sends SIGBUS for a page that the
 * file no longer has, which would end the process. The handler here puts an empty private page in
 * its place and notes that the table is lost. The call continues with zeros (a table may contain
 * any bytes: test_damage.c), and its result is replaced by WEIR_EFORMAT.
 *
 * The handler takes no lock and reads an array. Faults outside of tables are passed to the previous
 * handler.
 */
#include "table/guard.h"

#include "weir/lost.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAPPINGS 1024

static struct weir_mapping mappings[MAPPINGS];
static struct sigaction before;
static uintptr_t page_bytes;
static int installed;

/* ------------------------------------------------------------------------------------- mappings */

struct weir_mapping *weir_mapping_add(void *base, size_t bytes) {
    uintptr_t begin = (uintptr_t)base;
    for (struct weir_mapping *m = mappings; m < mappings + MAPPINGS; m++) {
        uintptr_t unused = 0;
        if (!atomic_compare_exchange_strong(&m->begin, &unused, begin))
            continue;
        atomic_store(&m->lost, 0);
        atomic_store(&m->end, begin + bytes);
        return m;
    }
    return NULL;
}

void weir_mapping_remove(struct weir_mapping *mapping, void *base, size_t bytes) {
    if (mapping && atomic_load(&mapping->lost))
        return; /* a lock that was held in a lost page is still in the thread's robust list */
    if (mapping) {
        atomic_store(&mapping->end, 0);
        atomic_store(&mapping->begin, 0);
    }
    munmap(base, bytes);
}

/* -------------------------------------------------------------------------------------- handler */

static struct weir_mapping *mapping_of(uintptr_t at) {
    for (struct weir_mapping *m = mappings; m < mappings + MAPPINGS; m++)
        if (at >= atomic_load(&m->begin) && at < atomic_load(&m->end))
            return m;
    return NULL;
}

/* Whether memory is now where the page was. */
static bool replace(uintptr_t at) {
    struct weir_mapping *mapping = mapping_of(at);
    uintptr_t page = at & ~(page_bytes - 1);
    if (!mapping)
        return false;
    atomic_store(&mapping->lost,
                 1); /* set first, because other threads may read the new page immediately */
    return mmap((void *)page, atomic_load(&mapping->end) - page, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

static void pass_on(int number, siginfo_t *info, void *context) {
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else if (info->si_code > 0 || before.sa_handler == SIG_DFL) {
        /* After we return, a fault happens again; a signal that a process sent is sent again. */
        signal(number, SIG_DFL);
        if (info->si_code <= 0)
            raise(number);
    }
}

static void on_fault(int number, siginfo_t *info, void *context) {
    int error = errno;
    if (info->si_code <= 0 || !replace((uintptr_t)info->si_addr))
        pass_on(number, info, context);
    errno = error;
}

static void install(void) {
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    action.sa_sigaction = on_fault;
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    /* `before` is complete before a signal can come to our handler. */
    installed = sigaction(SIGBUS, NULL, &before) == 0 && sigaction(SIGBUS, &action, NULL) == 0;
}

int weir_table_guard(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    return installed ? 0 : WEIR_ESYSTEM;
}
