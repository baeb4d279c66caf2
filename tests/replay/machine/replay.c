// SPDX-License-Identifier: GPL-2.0
/*
 * The sampling program as an ordinary process: state and walks come in on standard input, results go out as JSON lines.
 *
 * Maps are arrays, user memory is what was sent or the memory of a stopped process, the kernel stack is a buffer. A
 * message is a kind, the length of its content and the content, all little-endian; see ../README.md.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../../bpf/native.bpf.c"

#define KERNEL_STACK_BYTES 16384
#define LARGEST_MESSAGE (64 << 20)
#define MOST_PROCESSES 64
#define MOST_READS 20000

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *text, ...)
{
	va_list arguments;

	va_start(arguments, text);
	fputs("replay: ", stderr);
	vfprintf(stderr, text, arguments);
	fputc('\n', stderr);
	exit(2);
}

/* ---- the machine ---- */

/* What may be read as kernel memory. */
static struct {
	struct task_struct task;
	struct mm_struct mm;
	_Alignas(16) u8 stack[KERNEL_STACK_BYTES];
} kernel;

static struct record the_record;
static struct counters the_counters;
static struct stack_copy the_stack_copy;
static struct abi_rule the_rules[ABI_MAX_RULES];
static struct page *the_parts[ABI_MAX_PARTS];
static struct {
	u32 pid;
	struct abi_process row;
} the_processes[MOST_PROCESSES];

/* Maps of one kind: entries that lie one behind the other. */
static const struct {
	const void *map;
	void *entries;
	u32 bytes, count;
} arrays[] = {
	{&records, &the_record, sizeof(the_record), 1},
	{&counters, &the_counters, sizeof(the_counters), 1},
	{&stack_copies, &the_stack_copy, sizeof(the_stack_copy), 1},
	{&rules, the_rules, sizeof(the_rules[0]), ABI_MAX_RULES},
};

/* Recorded memory: what lies in a page beside the recorded words can be read, but means nothing. */
#define NOT_RECORDED 0xa5
struct recorded_page {
	u64 start;
	u8 content[4096];
};
static struct recorded_page *recorded_pages;
static u32 recorded_count;
/* Memory of a stopped process, where no recorded page covers an address. */
static int live = -1;

static struct {
	u64 address;
	u32 bytes;
} reads[MOST_READS];
static u32 read_count;
/* The last address that could not be read; 0 = none. */
static u64 unreadable;

/* The sampled thread. */
enum { MODE_USER, MODE_KERNEL, MODE_KERNEL_THREAD };
static struct walk_request {
	u32 pid, tid, mode, kernel_frames;
	u64 regs[USER_REGS_WORDS];
#if defined(__TARGET_ARCH_x86)
	u64 fs_base;
#endif
} request;

static u8 output[sizeof(struct abi_trace_event) + ABI_FRAME_WORDS * sizeof(u64)];
static u64 output_bytes;

/* ---- helpers ---- */

void *bpf_map_lookup_elem(const void *map, const void *key)
{
	u32 index = *(const u32 *)key;

	for (u32 i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
		if (map == arrays[i].map)
			return index < arrays[i].count ? (u8 *)arrays[i].entries + (u64)index * arrays[i].bytes : 0;
	if (map == &processes) {
		for (u32 i = 0; i < MOST_PROCESSES; i++)
			if (the_processes[i].pid == index)
				return &the_processes[i].row;
		return 0;
	}
	if (map == &parts)
		return index < ABI_MAX_PARTS ? the_parts[index] : 0;
	for (u32 i = 0; i < ABI_MAX_PARTS; i++)
		if (map == the_parts[i])
			return index < ABI_PART_PAGES ? the_parts[i] + index : 0;
	fail("look-up in a map that replay.c does not list");
}

long bpf_map_update_elem(const void *map, const void *key, const void *value, u64 flags)
{
	(void)map, (void)key, (void)value, (void)flags;
	fail("update of a map: the sampling program did none when this was written");
}

static struct recorded_page *recorded_page(u64 address)
{
	for (u32 i = 0; i < recorded_count; i++)
		if (recorded_pages[i].start == (address & ~4095ULL))
			return &recorded_pages[i];
	return 0;
}

/* Bytes from `address` up to the end of its page, at most `bytes`. */
static u32 piece_of(u64 address, u32 bytes)
{
	u32 left = 4096 - (address & 4095);

	return bytes < left ? bytes : left;
}

static int read_recorded(u8 *to, u32 bytes, u64 address)
{
	for (u32 done = 0, piece; done < bytes; done += piece) {
		struct recorded_page *page = recorded_page(address + done);

		if (!page)
			return 0;
		piece = piece_of(address + done, bytes - done);
		memcpy(to + done, page->content + ((address + done) & 4095), piece);
	}
	return 1;
}

static void record(u64 address, const u8 *content, u32 bytes)
{
	for (u32 done = 0, piece; done < bytes; done += piece) {
		struct recorded_page *page = recorded_page(address + done);

		if (!page) {
			recorded_pages = realloc(recorded_pages, (recorded_count + 1) * sizeof(*recorded_pages));
			if (!recorded_pages)
				fail("no memory");
			page = &recorded_pages[recorded_count++];
			page->start = (address + done) & ~4095ULL;
			memset(page->content, NOT_RECORDED, sizeof(page->content));
		}
		piece = piece_of(address + done, bytes - done);
		memcpy(page->content + ((address + done) & 4095), content + done, piece);
	}
}

long bpf_probe_read_user(void *to, u32 bytes, const void *from)
{
	u64 address = (u64)from;

	if (!read_recorded(to, bytes, address) &&
	    (live < 0 || address >> 63 || pread(live, to, bytes, (off_t)address) != (ssize_t)bytes)) {
		unreadable = address;
		return -14;
	}
	if (read_count < MOST_READS) {
		reads[read_count].address = address;
		reads[read_count++].bytes = bytes;
	}
	return 0;
}

long bpf_probe_read_kernel(void *to, u32 bytes, const void *from)
{
	const u8 *first = (const u8 *)&kernel, *at = from;

	if (at < first || at > first + sizeof(kernel) || bytes > (u64)(first + sizeof(kernel) - at)) {
		memset(to, 0, bytes);
		return -14;
	}
	memcpy(to, at, bytes);
	return 0;
}

long bpf_get_stack(void *context, void *to, u32 bytes, u64 flags)
{
	u64 *word = to;

	(void)context;
	if (flags || request.kernel_frames * sizeof(u64) > bytes)
		return -22;
	for (u32 i = 0; i < request.kernel_frames; i++)
		word[i] = 0xffffffff81000000 + i;
	return (long)(request.kernel_frames * sizeof(u64));
}

long bpf_ringbuf_output(const void *ring, void *from, u64 bytes, u64 flags)
{
	(void)flags;
	/* Another way to the same stack: told by a counter. */
	if (ring == &events && from == &the_stack_copy)
		return 0;
	if (ring != &events || bytes > sizeof(output))
		fail("ring output of %llu bytes", bytes);
	memcpy(output, from, bytes);
	output_bytes = bytes;
	return 0;
}

long bpf_perf_event_output(void *context, const void *buffers, u64 flags, void *from, u64 bytes)
{
	(void)context;
	return bpf_ringbuf_output(buffers, from, bytes, flags);
}

u64 bpf_ringbuf_query(const void *ring, u64 what)
{
	(void)ring;
	return what == BPF_RB_RING_SIZE ? 1 << 22 : 0;
}

long bpf_loop(u32 rounds, void *function, void *context, u64 flags)
{
	long (*round)(u32, void *) = (long (*)(u32, void *))function;

	(void)flags;
	for (u32 i = 0; i < rounds; i++)
		if (round(i, context))
			return i + 1;
	return rounds;
}

u64 bpf_get_current_pid_tgid(void) { return (u64)request.pid << 32 | request.tid; }
u64 bpf_get_current_task(void) { return (u64)&kernel.task; }
struct task_struct *bpf_get_current_task_btf(void) { return &kernel.task; }
long bpf_task_pt_regs(struct task_struct *task)
{
	(void)task;
	return (long)(kernel.stack + KERNEL_STACK_BYTES - sizeof(request.regs));
}
u32 bpf_get_smp_processor_id(void) { return 0; }
u64 bpf_ktime_get_ns(void) { return 1; }
long bpf_get_current_comm(void *to, u32 bytes)
{
	memset(to, 0, bytes);
	memcpy(to, "replayed", bytes < 8 ? bytes : 8);
	return 0;
}

/* ---- messages ---- */

static const char *const end_names[] = {
#define X(name, number, variant) [number] = #variant,
	ABI_END_REASONS(X)
#undef X
};
static const char *const counter_names[] = {
#define X(name, class, text) text,
	ABI_COUNTERS(X)
#undef X
};

static void print_result(void)
{
	const struct abi_trace_event *event = (const void *)output;
	const u64 *frame = (const u64 *)(output + sizeof(*event)) + event->kernel_frames;
	const char *separator = "";

	if (!output_bytes) {
		puts("{\"end\":null}");
		return;
	}
	if (output_bytes != sizeof(*event) + (event->kernel_frames + event->user_frames) * sizeof(u64))
		fail("record of %llu bytes with %u and %u frames", output_bytes, event->kernel_frames, event->user_frames);
	printf("{\"end\":\"%s\",\"pid\":%u,\"tid\":%u,\"kernel_frames\":%u,\"skipped\":%u,\"ring_start\":%u,\"frames\":[",
	       event->end < sizeof(end_names) / sizeof(end_names[0]) && end_names[event->end] ? end_names[event->end] : "?",
	       event->pid, event->tid, event->kernel_frames, event->skipped, event->ring_start);
	for (u32 i = 0; i < event->user_frames; i++, separator = ",")
		printf("%s%llu", separator, frame[i]);
	printf("],\"reads\":[");
	separator = "";
	for (u32 i = 0; i < read_count; i++, separator = ",")
		printf("%s[%llu,%u]", separator, reads[i].address, reads[i].bytes);
	printf("],\"unreadable\":%llu,\"counters\":{", unreadable);
	separator = "";
	for (u32 i = 0; i < COUNTER_COUNT; i++, separator = ",")
		printf("%s\"%s\":%llu", separator, counter_names[i], the_counters.value[i]);
	puts("}}");
}

static void walk_once(void)
{
	struct perf_context context;

	memset(&context, 0, sizeof(context));
	memset(&the_counters, 0, sizeof(the_counters));
	kernel.task.stack = kernel.stack;
	kernel.task.mm = request.mode == MODE_KERNEL_THREAD ? 0 : &kernel.mm;
	kernel.task.flags = request.mode == MODE_KERNEL_THREAD ? PF_KTHREAD : 0;
#if defined(__TARGET_ARCH_x86)
	kernel.task.thread.fsbase = request.fs_base;
#endif
	memcpy(kernel.stack + KERNEL_STACK_BYTES - sizeof(request.regs), request.regs, sizeof(request.regs));
	if (request.mode == MODE_USER)
		memcpy(&context, request.regs, sizeof(context) - 2 * sizeof(u64));
#if defined(__TARGET_ARCH_arm64)
	else
		context.word[33] = 5; /* EL1h */
#endif
	output_bytes = 0;
	read_count = 0;
	unreadable = 0;
	sample(&context);
	print_result();
}

static void take(u32 kind, u8 *content, u32 bytes)
{
	u32 id = bytes >= 4 ? *(u32 *)content : 0;

	if (kind == 'P' && bytes == 4 + sizeof(struct page) && id < ABI_MAX_PARTS * ABI_PART_PAGES) {
		u32 part = id / ABI_PART_PAGES;

		if (!the_parts[part] && !(the_parts[part] = calloc(ABI_PART_PAGES, sizeof(struct page))))
			fail("no memory");
		memcpy(the_parts[part] + id % ABI_PART_PAGES, content + 4, sizeof(struct page));
	} else if (kind == 'W' && bytes == 12 && id < ABI_MAX_PARTS * ABI_PART_PAGES) {
		u32 word = *(u32 *)(content + 4);

		if (!the_parts[id / ABI_PART_PAGES] || word >= ABI_PAGE_WORDS)
			fail("word %u of page %u", word, id);
		the_parts[id / ABI_PART_PAGES][id % ABI_PART_PAGES].word[word] = *(u32 *)(content + 8);
	} else if (kind == 'R' && bytes == 4 + sizeof(struct abi_rule) && id < ABI_MAX_RULES) {
		memcpy(&the_rules[id], content + 4, sizeof(struct abi_rule));
	} else if (kind == 'S' && bytes == 4 + sizeof(struct abi_process) && id) {
		u32 i = 0;

		while (i < MOST_PROCESSES && the_processes[i].pid != id && the_processes[i].pid)
			i++;
		if (i == MOST_PROCESSES)
			fail("more than %u processes", MOST_PROCESSES);
		the_processes[i].pid = id;
		memcpy(&the_processes[i].row, content + 4, sizeof(struct abi_process));
	} else if (kind == 'D' && bytes == 4) {
		for (u32 i = 0; i < MOST_PROCESSES; i++)
			if (the_processes[i].pid == id)
				the_processes[i].pid = 0;
	} else if (kind == 'C' && bytes == sizeof(struct abi_settings)) {
		memcpy((void *)&settings, content, bytes);
	} else if (kind == 'Z' && bytes == 0) {
		recorded_count = 0;
		memset(&the_record, 0, sizeof(the_record));
	} else if (kind == 'M' && bytes > 8) {
		u64 start;

		memcpy(&start, content, 8);
		record(start, content + 8, bytes - 8);
	} else if (kind == 'L' && bytes == 4) {
		char path[64];

		if (live >= 0)
			close(live);
		snprintf(path, sizeof(path), "/proc/%u/mem", id);
		live = id ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (id && live < 0)
			fail("%s cannot be opened", path);
	} else if (kind == 'W' && bytes == sizeof(request)) {
		memcpy(&request, content, bytes);
		walk_once();
		if (fflush(stdout))
			fail("result cannot be written");
	} else {
		fail("message %u of %u bytes makes no sense", kind, bytes);
	}
}

int main(void)
{
	long page = sysconf(_SC_PAGESIZE);
	u64 at = (u64)&settings & ~(u64)(page - 1);
	u32 head[2];
	u8 *content = 0;

	/* Constant for the program, set once per machine here. */
	if (mprotect((void *)at, (u64)&settings + sizeof(settings) - at, PROT_READ | PROT_WRITE))
		fail("settings cannot be made writable");
	while (fread(head, sizeof(head), 1, stdin) == 1) {
		if (head[1] > LARGEST_MESSAGE || !(content = realloc(content, head[1] + 8)))
			fail("message of %u bytes", head[1]);
		if (head[1] && fread(content, head[1], 1, stdin) != 1)
			fail("message ends early");
		take(head[0], content, head[1]);
	}
	free(content);
	return 0;
}
