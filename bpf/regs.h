/* SPDX-License-Identifier: GPL-2.0 */
/* The user registers of the interrupted thread, for each architecture. */
#pragma once

#include "maps.h"

#if defined(__TARGET_ARCH_x86)


static __always_inline int regs_are_user(const struct user_regs *regs)
{
	return (regs->cs & 3) == 3;
}

/* Code segment of 32-bit code: __USER32_CS. 64-bit code runs on 0x33 (or 0xe033 under Xen PV). */
static __always_inline int regs_are_compat(const struct user_regs *regs)
{
	return (regs->cs & 0xffff) == 0x23;
}

/*
 * Interrupted in a system call: the first user address follows the instruction that is at work.
 *
 * The number of the call stays when the kernel moves the thread elsewhere on its way out: to the first instruction of a
 * signal handler or of a new program, or back to the call that will start again. The instruction itself leaves its return
 * address in rcx (not with FRED); the moves do not, then the code decides.
 */
static __always_inline int regs_in_syscall(const struct user_regs *regs)
{
	u16 before;

	if ((s64)regs->orig_rax < 0)
		return 0;
	if (regs->rcx == regs->rip || read_user(&before, sizeof(before), regs->rip - sizeof(before)))
		return 1;
	/* syscall; int 0x80 */
	return before == 0x050f || before == 0x80cd;
}

static __always_inline void regs_to_frame(struct record *r)
{
	r->pc = r->regs.rip;
	r->sp = r->regs.rsp;
	r->fp = r->regs.rbp;
}

static __always_inline u64 code_pointer(u64 value)
{
	return value;
}

/* Stack pointer of the caller, given the frame pointers of both: the frame record lies at the end of the callee's frame. */
static __always_inline u64 caller_sp(u64 fp, u64 next_fp)
{
	(void)next_fp;
	return fp + 16;
}

/* Signal trampoline: sp points at the ucontext; 40 bytes on, its registers begin, in sigcontext's order. */
static __always_inline long read_signal_frame(struct record *r)
{
	struct {
		u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip;
	} saved;

	r->stack_reads++;
	if (read_user(&saved, sizeof(saved), r->sp + 40))
		return -1;
	r->regs.r15 = saved.r15;
	r->regs.r14 = saved.r14;
	r->regs.r13 = saved.r13;
	r->regs.r12 = saved.r12;
	r->regs.rbp = saved.rbp;
	r->regs.rbx = saved.rbx;
	r->regs.r11 = saved.r11;
	r->regs.r10 = saved.r10;
	r->regs.r9 = saved.r9;
	r->regs.r8 = saved.r8;
	r->regs.rax = saved.rax;
	r->regs.rcx = saved.rcx;
	r->regs.rdx = saved.rdx;
	r->regs.rsi = saved.rsi;
	r->regs.rdi = saved.rdi;
	r->regs.rip = saved.rip;
	r->regs.rsp = saved.rsp;
	return 0;
}

/*
 * Go's g of the current thread, a word beside what the thread pointer points at. A thread that sets its thread pointer by an
 * instruction of its own is seen with the one before until it is switched out once; libraries ask the kernel to set it.
 */
static __always_inline long read_go_g(struct record *r, const struct abi_rule *rule, u64 *g)
{
#ifdef EVERFLAME_LEGACY
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 thread = BPF_CORE_READ(task, thread.fsbase);
#else
	u64 thread = bpf_get_current_task_btf()->thread.fsbase;
#endif

	r->stack_reads++;
	return read_user(g, sizeof(*g), thread + (s64)rule->cfa_offset);
}

/* The link register of the frame found next is known: there is none. */
static __always_inline void set_link_register(struct record *r, u64 value)
{
	(void)r;
	(void)value;
}

#else /* arm64 */

static __always_inline int regs_are_user(const struct user_regs *regs)
{
	return (regs->pstate & 0xf) == 0;
}

/* PSR_MODE32_BIT. */
static __always_inline int regs_are_compat(const struct user_regs *regs)
{
	return (regs->pstate & 0x10) != 0;
}

static __always_inline int regs_in_syscall(const struct user_regs *regs)
{
	return regs->syscallno >= 0;
}

static __always_inline void regs_to_frame(struct record *r)
{
	r->pc = r->regs.pc;
	r->sp = r->regs.sp;
	r->fp = r->regs.regs[29];
}

/* A signed return address carries its signature in the upper bits. */
static __always_inline u64 code_pointer(u64 value)
{
	return value & ~settings.pac_mask;
}

/*
 * Stack pointer of the caller, given the frame pointers of both. The callee's frame record says nothing of it, for it lies
 * at the low end of the frame. So does the caller's own: its stack and frame pointer are equal where rules count from the
 * stack pointer (GCC); where not, they count from the frame pointer. Never lower than the record, so that walks end.
 */
static __always_inline u64 caller_sp(u64 fp, u64 next_fp)
{
	return next_fp > fp + 16 ? next_fp : fp + 16;
}

/* Go's g: the runtime keeps it in a register, which no Go code uses for anything else. */
static __always_inline long read_go_g(struct record *r, const struct abi_rule *rule, u64 *g)
{
	*g = r->reg[rule->slot & 63];
	return 0;
}

/* The link register of the frame found next is known. */
static __always_inline void set_link_register(struct record *r, u64 value)
{
	r->regs.regs[30] = value;
	r->is_leaf = 1;
}

/* Signal trampoline: x0 to x30, sp and pc lie 312 bytes above sp (siginfo 128, ucontext up to the registers 184). */
static __always_inline long read_signal_frame(struct record *r)
{
	r->stack_reads++;
	return read_user(&r->regs, 33 * sizeof(u64), r->sp + 312);
}

#endif

/* Registers at the time of kernel entry: they lie at the top of the thread's kernel stack. */
static __always_inline int read_entry_regs(struct record *r)
{
#ifdef EVERFLAME_LEGACY
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 top;

	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 0;
	top = (u64)BPF_CORE_READ(task, stack) + settings.kernel_stack_bytes - bpf_core_type_size(struct pt_regs);
	if (bpf_probe_read_kernel(&r->regs, USER_REGS_WORDS * sizeof(u64), (void *)top))
		return 0;
	if (regs_are_user(&r->regs))
		return 1;
	/* Kernels that can use FRED (6.9) leave 16 bytes between the registers and the top. */
	if (bpf_probe_read_kernel(&r->regs, USER_REGS_WORDS * sizeof(u64), (void *)(top - 16)))
		return 0;
#else
	struct task_struct *task = bpf_get_current_task_btf();

	if (task->flags & PF_KTHREAD)
		return 0;
	if (bpf_probe_read_kernel(&r->regs, USER_REGS_WORDS * sizeof(u64), (void *)bpf_task_pt_regs(task)))
		return 0;
#endif
	return regs_are_user(&r->regs);
}

enum { IN_USER, IN_KERNEL, IN_KERNEL_THREAD };

/* Fills the record's registers and first frame; says where the thread was interrupted. */
static __always_inline int read_user_regs(struct record *r, struct perf_context *context)
{
	r->is_leaf = 1;
	r->is_return = 0;
#if defined(__TARGET_ARCH_x86)
	/* Member by member: loads from the context must be 8 bytes at constant offsets. */
	r->regs.cs = context->regs.cs;
	if (regs_are_user(&r->regs)) {
		r->regs.r15 = context->regs.r15;
		r->regs.r14 = context->regs.r14;
		r->regs.r13 = context->regs.r13;
		r->regs.r12 = context->regs.r12;
		r->regs.rbp = context->regs.rbp;
		r->regs.rbx = context->regs.rbx;
		r->regs.r11 = context->regs.r11;
		r->regs.r10 = context->regs.r10;
		r->regs.r9 = context->regs.r9;
		r->regs.r8 = context->regs.r8;
		r->regs.rax = context->regs.rax;
		r->regs.rcx = context->regs.rcx;
		r->regs.rdx = context->regs.rdx;
		r->regs.rsi = context->regs.rsi;
		r->regs.rdi = context->regs.rdi;
		r->regs.rip = context->regs.rip;
		r->regs.rsp = context->regs.rsp;
		regs_to_frame(r);
		return IN_USER;
	}
#else
	r->regs.pstate = context->word[33];
	if (regs_are_user(&r->regs)) {
#pragma clang loop unroll(full)
		for (int i = 0; i < 33; i++)
			r->reg[i] = context->word[i];
		regs_to_frame(r);
		return IN_USER;
	}
#endif
	if (!read_entry_regs(r))
		return IN_KERNEL_THREAD;
	r->is_return = regs_in_syscall(&r->regs);
	regs_to_frame(r);
	return IN_KERNEL;
}
