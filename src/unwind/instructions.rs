//! What single machine instructions do to the stack: the words that `guess` reasons with.
//!
//! Decoders of the two architectures translate into these; everything that moves neither stack, frame pointer nor
//! control is [`Effect::None`].

/// Number of a register as instructions write it: 4 is rsp and 5 rbp on x86-64, 31 sp and 29 x29 on arm64.
pub(super) type Register = u8;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Bytes.
    pub(super) len: u8,
    pub(super) effect: Effect,
}

/// What it does, as far as a walk over stacks cares. Offsets of branches are relative to the instruction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Does nothing: assemblers fill up with it.
    Padding,
    /// x86-64 only: one word.
    Push(Option<Register>),
    /// x86-64 only: one word.
    Pop(Option<Register>),
    /// Added to the stack pointer.
    MoveSp(i32),
    /// The stack pointer is cut to an alignment or moved by a register.
    LoseSp,
    /// `register = sp + offset`.
    CopySp(Register, i32),
    /// `sp = register + offset`.
    SetSp(Register, i32),
    /// `sp = [sp + offset]`.
    LoadSp(i32),
    /// `[sp + offset] = register`, and then `sp += moved`; arm64 stores two neighbours at once.
    Store {
        first: Register,
        second: Option<Register>,
        offset: i32,
        moved: i32,
    },
    /// The reverse of it.
    Load {
        first: Register,
        second: Option<Register>,
        offset: i32,
        moved: i32,
    },
    /// Some other value.
    Write(Register),
    /// `sp = rbp; pop rbp`.
    Leave,
    Return,
    /// Nothing comes after it.
    Halt,
    /// Always; `None`: not to be seen from the instruction.
    Jump(Option<i64>),
    /// Sometimes.
    Branch(i64),
    Call(Option<i64>),
}
