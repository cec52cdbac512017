//! From the queue to the engine and back: who goes when ([`queue`]), what is recorded before ([`dispatch`]) and after
//! ([`finish`]) a run, and the threads that run ([`house`]). Whoever takes jobs reaches it through [`handover`].

pub mod board;
mod brief;
pub mod clocks;
pub mod dispatch;
pub mod finish;
pub mod handover;
pub mod house;
mod listen;
pub mod queue;
mod room;
