/* SPDX-License-Identifier: GPL-2.0 */
/* Which row of the process table speaks of the sampled thread: its own, or that of the process it was forked from. */
#pragma once

#include "maps.h"

/* A shell in a shell in a shell: how far up a row is looked for. */
#define MAX_ANCESTORS 3

/*
 * Mark of the program that a memory descriptor runs, never 0. The kernel places stack and heap at random for each exec,
 * and fork copies the numbers: equal marks mean the same program, started by the same exec.
 */
static __always_inline u32 program_mark(struct mm_struct *mm)
{
	u64 mark = BPF_CORE_READ(mm, start_stack) >> 4;

	mark = mark * 0x9e3779b97f4a7c15ULL + (BPF_CORE_READ(mm, start_brk) >> 4);
	mark = mark * 0x9e3779b97f4a7c15ULL + BPF_CORE_READ(mm, start_code);
	return (mark ^ mark >> 32) | 1;
}

/* Whether the row speaks of the program with this mark; the first sample decides for those that come. */
static __always_inline int speaks_of(struct abi_process *row, u32 mark)
{
	if (row->program == 0)
		row->program = mark;
	return row->program == mark;
}

/* Row of the nearest ancestor that runs the same program. */
static __always_inline struct abi_process *find_ancestor(struct task_struct *task, u32 mark)
{
	struct abi_process *row;
	struct mm_struct *mm;

#pragma clang loop unroll(full)
	for (int i = 0; i < MAX_ANCESTORS; i++) {
		task = BPF_CORE_READ(task, real_parent);
		mm = BPF_CORE_READ(task, mm);
		if (!mm || program_mark(mm) != mark)
			return 0;
		row = get_process(BPF_CORE_READ(task, tgid));
		if (row)
			return speaks_of(row, mark) ? row : 0;
	}
	return 0;
}

/*
 * Whether the current thread works for io_uring. Such threads are of a process and share its memory, but never were in user
 * mode: x86-64 leaves them a copy of their creator's registers with program counter and stack pointer zero (5.13), others
 * registers of the kernel's mode.
 */
static __always_inline int is_io_worker(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return (BPF_CORE_READ(task, flags) & PF_IO_WORKER) != 0;
}

/* The row for the current thread of process `pid`; null when user space has told of none. Kernel threads have none. */
static __always_inline struct abi_process *find_process(u32 pid, struct counters *count)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct abi_process *row = get_process(pid);
	u32 mark;

	if (!mm)
		return 0;
	mark = program_mark(mm);
	if (row && speaks_of(row, mark))
		return row;
	row = find_ancestor(task, mark);
	if (row)
		count->value[COUNTER_PARENT_ROWS]++;
	return row;
}
