/* A qemu plugin that counts the cache lines of data fetched from memory, with a model of the caches.

   Each level is set-associative with least recently used replacement and receives the misses of the
   previous level. Prefetching, other cores and instruction fetches are not modelled. The count is
   requested as in count.c. Arguments: out=FILE, then for each level from first to last,
   cache=KILOBYTES/WAYS. */

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VISIBLE __attribute__((visibility("default")))
#define GETPRIORITY 141 /* of aarch64 */
#define COUNT_REQUEST 0x0ed6ea77u
#define LINE 6 /* 64 bytes */
#define LEVELS 3
#define READ_WRITE 3
#define NO_REGISTERS 0

typedef uint64_t plugin_id;
typedef uint32_t access_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id,
                                           void (*)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *,
                                      void (*)(unsigned, access_info, uint64_t, void *), int, int,
                                      void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id,
                                          void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t,
                                                   uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                   uint64_t));

VISIBLE int qemu_plugin_version = 1;

struct level {
    size_t sets, ways;
    uint64_t *tags, *used;
};

static struct level levels[LEVELS];
static size_t count;
static uint64_t now, fetched;
static FILE *out;

/* Returns whether the level has the line, and loads it otherwise. */
static int access_level(struct level *level, uint64_t line)
{
    size_t first = (line % level->sets) * level->ways, oldest = first;
    for (size_t way = first; way < first + level->ways; way++) {
        if (level->tags[way] == line) {
            level->used[way] = now;
            return 1;
        }
        if (level->used[way] < level->used[oldest])
            oldest = way;
    }
    level->tags[oldest] = line;
    level->used[oldest] = now;
    return 0;
}

static void accessed(unsigned cpu, access_info info, uint64_t address, void *data)
{
    (void)cpu, (void)info, (void)data;
    now++;
    for (size_t k = 0; k < count; k++)
        if (access_level(&levels[k], address >> LINE))
            return;
    fetched++;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    for (size_t k = 0; k < qemu_plugin_tb_n_insns(block); k++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(block, k), accessed, NO_REGISTERS,
                                         READ_WRITE, NULL);
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t which, uint64_t who,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)cpu, (void)which, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == GETPRIORITY && (uint32_t)who == COUNT_REQUEST) {
        fprintf(out, "%" PRIu64 "\n", fetched);
        fflush(out);
    }
}

VISIBLE int qemu_plugin_install(plugin_id id, const void *info, int argument_count, char **arguments)
{
    (void)info;
    for (int k = 0; k < argument_count; k++) {
        unsigned kilobytes, ways;
        if (strncmp(arguments[k], "out=", 4) == 0) {
            out = fopen(arguments[k] + 4, "w");
        } else if (count < LEVELS && sscanf(arguments[k], "cache=%u/%u", &kilobytes, &ways) == 2) {
            struct level *level = &levels[count++];
            level->ways = ways;
            level->sets = ((size_t)kilobytes << 10 >> LINE) / ways;
            level->tags = malloc(level->sets * ways * sizeof(uint64_t));
            level->used = calloc(level->sets * ways, sizeof(uint64_t));
            memset(level->tags, 0xff, level->sets * ways * sizeof(uint64_t));
        } else {
            return 1;
        }
    }
    if (out == NULL || count == 0)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
