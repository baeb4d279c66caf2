/*
 * A program that compiles, in the smallest way: two functions of machine code in anonymous memory, each with a frame
 * pointer, the outer one calling the inner one, the inner one calling back into the program.
 *
 * main -> enter -> outer (compiled) -> inner (compiled) -> burn
 *
 * Argument 1: `map` writes /tmp/perf-PID.map, `dump` writes jit-PID.dump in the working directory, `none` writes nothing,
 * `reuse` writes a dump and puts other code, `inner-2`, in place of `inner` again and again.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

volatile uint64_t sum;

__attribute__((noinline)) static void burn(void)
{
	for (int i = 0; i < 200000; i++)
		sum += i;
}

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

/* Writes a function that calls `callee` and returns. Returns its size. */
static size_t compile(unsigned char *at, void *callee)
{
#if defined(__x86_64__)
	unsigned char code[] = {
		0x55,                                     /* push rbp */
		0x48, 0x89, 0xe5,                         /* mov rbp, rsp */
		0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0,       /* mov rax, callee */
		0xff, 0xd0,                               /* call rax */
		0x5d, 0xc3,                               /* pop rbp; ret */
	};
	memcpy(code + 6, &callee, 8);
#elif defined(__aarch64__)
	uint32_t code[] = {
		0xa9bf7bfd, /* stp x29, x30, [sp, #-16]! */
		0x910003fd, /* mov x29, sp */
		0x580000a9, /* ldr x9, callee, 20 bytes on */
		0xd63f0120, /* blr x9 */
		0xa8c17bfd, /* ldp x29, x30, [sp], #16 */
		0xd65f03c0, /* ret */
		0xd503201f, 0, 0,
	};
	memcpy(code + 7, &callee, 8);
#endif
	memcpy(at, code, sizeof(code));
	__builtin___clear_cache((char *)at, (char *)at + sizeof(code));
	return sizeof(code);
}

static int dump = -1;

static void write_load(void *start, size_t size, const char *name)
{
	struct {
		uint32_t id, length;
		uint64_t time;
		uint32_t pid, tid;
		uint64_t address, start, size, index;
	} record = {0, 0, now_ns(), getpid(), getpid(), (uintptr_t)start, (uintptr_t)start, size, 1};
	char bytes[1024];

	record.length = sizeof(record) + strlen(name) + 1 + size;
	memcpy(bytes, &record, sizeof(record));
	strcpy(bytes + sizeof(record), name);
	memcpy(bytes + record.length - size, start, size);
	if (write(dump, bytes, record.length) != (ssize_t)record.length)
		_exit(3);
}

/* Describes the code at `start`: line 77 of made.src. */
static void write_line(void *start)
{
	struct {
		uint32_t id, length;
		uint64_t time, code, count, address;
		uint32_t line, column;
		char file[16];
	} record = {2, sizeof(record) - 7, now_ns(), (uintptr_t)start, 1, (uintptr_t)start, 77, 0, "made.src"};

	if (write(dump, &record, record.length) != (ssize_t)record.length)
		_exit(3);
}

static void open_dump(void)
{
	struct {
		uint32_t magic, version, length, machine, pad, pid;
		uint64_t time, flags;
	} header = {0x4a695444, 1, sizeof(header), 62, 0, getpid(), now_ns(), 0};
	char path[64];

	snprintf(path, sizeof(path), "jit-%d.dump", getpid());
	dump = open(path, O_CREAT | O_TRUNC | O_RDWR, 0644);
	if (dump < 0 || write(dump, &header, sizeof(header)) != sizeof(header))
		_exit(3);
	/* By this mapping others find the file. */
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, dump, 0) == MAP_FAILED)
		_exit(3);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "none";
	unsigned char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *inner = memory + 64, *outer = memory + 1024;
	size_t inner_size, outer_size;
	char text[256], path[64];
	void (*enter)(void) = (void (*)(void))outer;

	if (memory == MAP_FAILED)
		return 2;
	inner_size = compile(inner, (void *)burn);
	outer_size = compile(outer, inner);
	if (!strcmp(how, "map")) {
		snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
		snprintf(text, sizeof(text), "%lx %zx inner\n%lx %zx outer\n", (long)inner, inner_size, (long)outer, outer_size);
		int map = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
		if (map < 0 || write(map, text, strlen(text)) < 0)
			return 3;
	} else if (strcmp(how, "none")) {
		open_dump();
		write_line(inner);
		write_load(inner, inner_size, "inner");
		write_load(outer, outer_size, "outer");
	}
	puts("ready");
	fflush(stdout);
	for (unsigned round = 0;; round++) {
		if (!strcmp(how, "reuse") && round % 64 == 0) {
			inner_size = compile(inner, (void *)burn);
			write_load(inner, inner_size, round % 128 ? "inner" : "inner-2");
		}
		enter();
	}
}
