/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hand-written stand-in for the kernel's headers: only what is touched.
 *
 * Structs under preserve_access_index are matched by name and field against the running kernel's BTF, so they list
 * only the fields in use. `struct user_regs` and `struct perf_context` are user ABI and laid out as they are.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_F_MMAPABLE = 1024 };
enum { BPF_RB_NO_WAKEUP = 1 };
#define BPF_F_CURRENT_CPU 0xffffffffULL
enum { BPF_RB_AVAIL_DATA = 0, BPF_RB_RING_SIZE = 1 };

/* task_struct.flags: no user part (include/linux/sched.h). */
#define PF_KTHREAD 0x00200000
/* The same of a thread that works for io_uring inside a process (5.12). */
#define PF_IO_WORKER 0x00000010

#if defined(__TARGET_ARCH_x86)

/* bpf_user_pt_regs_t, arch/x86/include/uapi: also the start of the kernel's pt_regs. */
struct user_regs {
	u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	u64 orig_rax, rip, cs, eflags, rsp, ss;
};
#define USER_REGS_WORDS 21

#elif defined(__TARGET_ARCH_arm64)

/* user_pt_regs, arch/arm64/include/uapi; pt_regs continues with orig_x0 and syscallno. */
struct user_regs {
	u64 regs[31];
	u64 sp, pc, pstate;
	u64 orig_x0;
	s32 syscallno;
	u32 unused;
};
#define USER_REGS_WORDS 36

#else
#error "no register layout for this architecture"
#endif

/* bpf_perf_event_data: what a perf_event program is called with. On arm64 without the two words behind pstate. */
struct perf_context {
#if defined(__TARGET_ARCH_x86)
	struct user_regs regs;
#else
	u64 word[34];
#endif
	u64 sample_period;
	u64 addr;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct pt_regs {
	unsigned long sp;
};
struct mm_struct {
	unsigned long start_code, start_stack, start_brk;
};
#if defined(__TARGET_ARCH_x86)
struct thread_struct {
	unsigned long fsbase;
};
#endif
struct task_struct {
	void *stack;
	unsigned int flags;
	int tgid;
	struct mm_struct *mm;
	struct task_struct *real_parent;
#if defined(__TARGET_ARCH_x86)
	struct thread_struct thread;
#endif
};
#pragma clang attribute pop
