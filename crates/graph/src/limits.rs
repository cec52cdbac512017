//! Every bound on a program, in one place.

/// Bytes of a program's JSON.
pub const PROGRAM_BYTES: usize = 64 << 20;
/// Bytes of a program's file: its constants, and its JSON, which may be twice as long inside a safetensors header.
pub const FILE_BYTES: usize = CONSTANT_BYTES + 2 * PROGRAM_BYTES + CONSTANTS * 4 * TEXT_BYTES;
/// Nodes of a program, bodies included.
pub const NODES: usize = 100_000;
/// How deep bodies stand in one another.
pub const BODY_DEPTH: usize = 8;
/// How deep JSON values stand in one another.
pub const JSON_DEPTH: usize = 64;
/// Values of a program's JSON, without whole numbers in lists of only such.
pub const JSON_VALUES: usize = 4 << 20;
/// Traces of a program.
pub const TRACES: usize = 4_096;
/// Traces that run together, because none of them depends on another.
pub const TRACES_TOGETHER: usize = 256;
/// Bytes of the values and rows of traces that run together.
pub const TOGETHER_BYTES: u64 = 256 << 20;
/// Invokes of a trace.
pub const INVOKES: usize = 16_384;
/// Prompts of an invoke.
pub const PROMPTS: usize = 16_384;
/// Characters of one prompt.
pub const PROMPT_CHARACTERS: usize = 4 << 20;
/// Bytes of all texts of a program together that are tokenised.
pub const TEXTS_BYTES: usize = 16 << 20;
/// Tokens of one prompt.
pub const PROMPT_TOKENS: usize = 1 << 20;
/// Bytes of a name, a hook address or a text argument.
pub const TEXT_BYTES: usize = 1_024;
/// Bytes of one node's source line.
pub const SOURCE_BYTES: usize = 4_096;
/// Elements of one tensor literal; larger ones travel as constants.
pub const LITERAL_ELEMENTS: usize = 65_536;
/// Constants of a program.
pub const CONSTANTS: usize = 4_096;
/// Bytes of all constants together.
pub const CONSTANT_BYTES: usize = 1 << 30;
/// Dimensions of a tensor.
pub const DIMENSIONS: usize = 8;
/// Different unknown lengths in one size; a sum of more is a size that cannot be known yet.
pub const DIMENSION_TERMS: usize = 16;
/// Elements of one tensor, in a program and in the engine; a run's memory usually bounds them far below.
pub const TENSOR_ELEMENTS: u64 = 1 << 31;
/// Operations that the decomposition of one matrix may take: nothing interrupts it.
pub const MATRIX_FLOPS: u64 = 1 << 36;
/// Tensors in one list argument (`cat`, `stack`, `einsum`).
pub const LIST_ARGUMENTS: usize = 16_384;
/// Items of one index.
pub const INDEX_ITEMS: usize = 32;
/// Steps of a generation.
pub const STEPS: u64 = 65_536;
/// Nodes inside `steps` at further steps that are checked in time, with the nodes that each waits for.
pub const MEETINGS: usize = 1 << 20;
/// Edits of one invoke, those that they bring with them included.
pub const EDITS: usize = 1_024;
/// Modules that one invoke skips, counted once for each `skip`.
pub const SKIPS: usize = 1_024;
/// Nodes that all `backward`s of a program go through, or look at on the way, together.
pub const WAY_BACK_NODES: usize = 4 << 20;
/// Faults reported for one program; checking stops there.
pub const FAULTS: usize = 256;
/// Axes of a sweep or loop.
pub const AXES: usize = 8;
/// Cells of a sweep or iterations of a loop, those of the sweeps and loops around it included.
pub const CELLS: usize = 262_144;
/// Nodes of a program after its sweeps, loops and wildcards are expanded.
pub const EXPANDED_NODES: usize = 262_144;
/// Bytes of a program after it is expanded: copies of literals, prompts and lists.
pub const EXPANDED_BYTES: usize = 256 << 20;
/// Sweeps and loops over the rows of a value whose size is looked up.
pub const ROW_AXES: usize = 64;

/// Bytes of a node's views up to which they are copied when they are made, rather than keep all of what they are views of.
pub const COPIED_VIEW: u64 = 64 << 10;
