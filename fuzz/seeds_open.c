/*
 * The seeds of fuzz_open.c: one damage each, to a field that is named here. A change of the layout
 * moves the fields, so the files in seeds/open are compared with these seeds by a test, and written
 * by
 *
 *     seeds_open --write fuzz/seeds/open
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "damaged.h"
#include "must.h"

#define SEED_MAX 4096
#define CORRECT_CHECKSUM 1 /* flags, see fuzz_open.c */
#define LIVE 2

static struct damaged damaged;
static const char *directory;
static bool writes;
static int stale;

static struct {
    const char *name;
    uint8_t bytes[SEED_MAX];
    size_t size;
} seed;

static void begin(const char *name, uint8_t flags) {
    seed.name = name;
    seed.bytes[0] = flags;
    seed.size = 1;
}

/* Adds patches that write `len` bytes at an offset of the file. */
static void patch(uint64_t offset, const void *bytes, size_t len) {
    for (size_t done = 0, part; done < len; done += part) {
        part = len - done < 16 ? len - done : 16;
        MUST(offset + done <= UINT16_MAX && seed.size + 3 + part <= SEED_MAX);
        seed.bytes[seed.size++] = (uint8_t)(offset + done);
        seed.bytes[seed.size++] = (uint8_t)((offset + done) >> 8);
        seed.bytes[seed.size++] = (uint8_t)(part - 1);
        memcpy(seed.bytes + seed.size, (const uint8_t *)bytes + done, part);
        seed.size += part;
    }
}

static void end(void) {
    char path[4096];
    uint8_t there[SEED_MAX + 1];
    snprintf(path, sizeof path, "%s/%s", directory, seed.name);
    FILE *file = fopen(path, writes ? "wb" : "rb");
    if (file && writes)
        MUST(fwrite(seed.bytes, 1, seed.size, file) == seed.size);
    bool same = file && (writes || (fread(there, 1, sizeof there, file) == seed.size &&
                                    !memcmp(there, seed.bytes, seed.size)));
    if (file && fclose(file) != 0)
        same = false;
    if (!same) {
        fprintf(stderr, "%s: %s\n", path,
                file ? "does not damage the field of its name" : "cannot be opened");
        stale++;
    }
}

static void one(const char *name, uint8_t flags, uint64_t offset, const void *bytes, size_t len) {
    begin(name, flags);
    patch(offset, bytes, len);
    end();
}

/*
 * The same bytes at `field` of each of `count` entries of `size` bytes from `offset` on, while the
 * table is open.
 */
static void each(const char *name, uint64_t offset, size_t size, uint64_t count, size_t field,
                 const void *bytes, size_t len) {
    begin(name, LIVE);
    for (uint64_t i = 0; i < count; i++)
        patch(offset + i * size + field, bytes, len);
    end();
}

static const uint8_t ones[16] = {255, 255, 255, 255, 255, 255, 255, 255,
                                 255, 255, 255, 255, 255, 255, 255, 255};
static const uint8_t zeros[16] = {0};

#define HEADER(name, flags, field, ...)                                                            \
    do {                                                                                           \
        struct weir_header h = {.field = __VA_ARGS__};                                             \
        one(name, flags, offsetof(struct weir_header, field), &h.field, sizeof h.field);           \
    } while (0)

static void of_the_header(void) {
    begin("undamaged", 0);
    end();
    one("magic", 0, offsetof(struct weir_header, magic), "ELF", 3);
    HEADER("version", CORRECT_CHECKSUM, version, WEIR_LAYOUT_VERSION + 1);
    HEADER("signature", CORRECT_CHECKSUM, signature, 1);
    HEADER("too_many_keys", CORRECT_CHECKSUM, keys, UINT64_C(1) << 63);
    HEADER("too_many_hits", CORRECT_CHECKSUM, hits, UINT64_C(1) << 40);
    HEADER("no_stripes", CORRECT_CHECKSUM, stripes, 0);
    HEADER("lines_elsewhere", CORRECT_CHECKSUM, lines_at, 64);
    one("other_secret", CORRECT_CHECKSUM, offsetof(struct weir_header, secret), "x", 1);
    one("secret_without_checksum", 0, offsetof(struct weir_header, secret), "x", 1);
    HEADER("sweep_cursor_far_out", 0, sweep_cursor, UINT64_MAX);
}

static void of_locks_and_undo_records(const struct weir_header *header) {
    uint64_t stripe = header->stripes_at, lock = stripe + offsetof(struct weir_stripe, lock);
    uint64_t undo = stripe + offsetof(struct weir_stripe, undo), pool = header->pool_at;
    uint64_t beyond = UINT64_C(1) << 40, fingerprint[2] = {5, 6};
    uint32_t lines_beyond = UINT32_C(1) << 30, fewer = 3;
    one("mutex_without_owner", 0, lock + offsetof(struct weir_lock, mutex), ones, 16);
    one("coordinator_out_of_range", 0,
        lock + sizeof(struct weir_stripe) + offsetof(struct weir_lock, coordinator), "\xff\xff\0",
        4);
    one("more_records_than_room", 0, lock + offsetof(struct weir_lock, undo_ready), ones, 4);
    one("undo_beyond_the_cells", 0, undo + offsetof(struct weir_undo, cell), &beyond, 8);
    one("undo_to_nonsense", 0, undo + offsetof(struct weir_undo, was.fingerprint), fingerprint, 16);
    one("pool_records_without_end", 0,
        pool + offsetof(struct weir_pool, lock) + offsetof(struct weir_lock, undo_ready), ones, 4);
    one("undo_of_a_line_beyond", 0, pool + offsetof(struct weir_pool, was), &lines_beyond, 4);
    one("free_head_beyond", 0, pool + offsetof(struct weir_pool, was_head), "\0\0\0\x80", 4);
    one("free_list_ends_early", 0, pool + offsetof(struct weir_pool, was_count), &fewer, 4);
    struct weir_pool free_list;
    memcpy(&free_list, damaged.base + pool, sizeof free_list);
    one("free_list_endless", 0,
        header->lines_at + free_list.free_head * sizeof(struct weir_line) +
            offsetof(struct weir_line, next),
        &free_list.free_head, 4);
}

static void of_cells_and_lines(const struct weir_header *header) {
    const struct weir_cell swapped[2] = {{.fingerprint = {1, 2}}, {.fingerprint = {3, 4}}};
    uint64_t cells = header->cells_at, first_line = header->lines_at + sizeof(struct weir_line);
    size_t cell = sizeof(struct weir_cell), line = sizeof(struct weir_line);
    int64_t latest = INT64_MAX, ends[2] = {INT64_MAX, INT64_MIN};
    uint32_t indices[3] = {WEIR_LINE_MASK, UINT32_MAX, 1023}, circle = UINT32_C(5) << 28 | 1;
    uint64_t lines = header->lines - 1 < 60 ? header->lines - 1 : 60;
    begin("first_cells_with_others_fingerprints_live", LIVE);
    for (int i = 0; i < 2; i++)
        patch(cells + (uint64_t)i * cell, &swapped[i], sizeof swapped[i].fingerprint);
    end();
    each("expired_in_the_far_future_live", cells, cell, header->keys,
         offsetof(struct weir_cell, state.expires_ns), &latest, sizeof latest);
    each("words_at_their_ends_live", cells, cell, header->keys,
         offsetof(struct weir_cell, state.word), ends, sizeof ends);
    each("line_indices_live", cells, cell, header->keys, offsetof(struct weir_cell, state.line),
         indices, sizeof indices);
    each("links_in_a_circle_live", first_line, line, lines, offsetof(struct weir_line, next),
         &circle, sizeof circle);
    each("records_of_zeros_live", first_line, line, lines, offsetof(struct weir_line, bytes), zeros,
         sizeof zeros);
    each("records_without_end_live", first_line, line, lines, offsetof(struct weir_line, bytes),
         ones, sizeof ones);
}

int main(int argc, char **argv) {
    writes = argc == 3 && !strcmp(argv[1], "--write");
    if (argc != 2 && !writes) {
        fprintf(stderr, "usage: seeds_open [--write] DIRECTORY\n");
        return 2;
    }
    directory = argv[argc - 1];
    damaged_make(&damaged);
    struct weir_header header;
    memcpy(&header, damaged.base, sizeof header);
    of_the_header();
    of_locks_and_undo_records(&header);
    of_cells_and_lines(&header);
    damaged_free(&damaged);
    if (stale > 0)
        fprintf(stderr, "%d seeds are stale: run seeds_open --write fuzz/seeds/open\n", stale);
    return stale > 0;
}
