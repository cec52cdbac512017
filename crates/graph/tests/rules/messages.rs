//! The messages of the rules, as their readers see them: what is wrong with which shapes, and what to do.

use insta::assert_snapshot;
use serde_json::{Value as Json, json};

use crate::support::rule;

/// The message and the hint.
fn refused(name: &str, arguments: Json) -> String {
    match rule(name, arguments) {
        Ok(typed) => panic!("taken: {typed:?}"),
        Err(error) => match error.hint {
            Some(hint) => format!("{}; {hint}", error.message),
            None => error.message,
        },
    }
}

#[test]
fn elementwise() {
    assert_snapshot!(refused("add", json!({"input": "f32[2, 3]", "other": "f32[4, 3]"})), @"`add` cannot broadcast [2, 3] with [4, 3]: sizes 2 and 4 differ at dimension -2, and neither is 1; shapes are aligned at their last dimension; `unsqueeze` or `transpose` one of them");
    assert_snapshot!(refused("mul", json!({"input": "f32[2, L0, 64]", "other": "f32[32]"})), @"`mul` cannot broadcast [2, L0, 64] with [32]: sizes 64 and 32 differ at dimension -1, and neither is 1; shapes are aligned at their last dimension; `unsqueeze` or `transpose` one of them");
    assert_snapshot!(refused("sub", json!({"input": "bool[3]", "other": "bool[3]"})), @"`sub` takes no truth values: bool[3] minus bool[3]; invert a mask with `logical_not`, tell two apart with `ne`, or cast with `to`");
    assert_snapshot!(refused("neg", json!({"input": "bool[3]"})), @"`neg` takes numbers, not the truth values bool[3]; invert a mask with `logical_not`");
    assert_snapshot!(refused("floor_divide", json!({"input": "bool[3]", "other": "bool[3]"})), @"`floor_divide` takes no truth values: bool[3] and bool[3]; cast one of them first: `to(…, i64)`");
    assert_snapshot!(refused("pow", json!({"input": "i64[3]", "exponent": -1})), @"`pow` cannot raise integers i64[3] to the negative power -1; cast the base to a float, or write the exponent as one: -1.0");
    assert_snapshot!(refused("clamp", json!({"input": "f32[3]"})), @"`clamp` needs `min`, `max`, or both");
    assert_snapshot!(refused("gelu", json!({"input": "i64[3]"})), @"`gelu` needs floating-point numbers, not i64[3]; cast it first: `to(…, f32)`");
    assert_snapshot!(refused("gelu", json!({"input": "f32[3]", "approximate": "erf"})), @r#"`gelu` takes as `approximate` none or tanh, not "erf""#);
    assert_snapshot!(refused("where", json!({"condition": "f32[3]", "input": 1, "other": 0})), @"`where` takes as `condition` truth values, not f32[3]; compare it first: `ne(…, 0)`");
    assert_snapshot!(refused("masked_fill", json!({"input": "f16[3]", "mask": "bool[3]", "value": 1000000000.0})), @"`masked_fill` writes 1000000000.0, which is out of range for f16; use a wider number type");
    assert_snapshot!(refused("masked_fill", json!({"input": "f32[3]", "mask": "bool[3]", "value": "f32[3]"})), @"`masked_fill` fills with one number, not with f32[3]; choose between two tensors with `where`");
}

#[test]
fn reductions() {
    assert_snapshot!(refused("sum", json!({"input": "f32[2, 3]", "dim": 2})), @"`sum` has no dimension 2: f32[2, 3] has dimensions -2 to 1");
    assert_snapshot!(refused("mean", json!({"input": "i64[2, 3]"})), @"`mean` needs floating-point numbers, not i64[2, 3]; cast it first: `to(…, f32)`");
    assert_snapshot!(refused("amax", json!({"input": "f32[2, 3]", "dim": [0, -2]})), @"`amax` names dimension 0 of f32[2, 3] twice");
    assert_snapshot!(refused("amax", json!({"input": "f32[0, 3]", "dim": 0})), @"`amax` of no elements has no value: f32[0, 3]");
    assert_snapshot!(refused("argmax", json!({"input": "f32[2, 3]", "dim": [0, 1]})), @"`argmax` reduces one dimension or all of them, not several: [0, 1]; `flatten` the dimensions first");
    assert_snapshot!(refused("argmax", json!({"input": "bool[2, 3]"})), @"`argmax` takes numbers, not the truth values bool[2, 3]; cast it first: `to(…, i64)`");
    assert_snapshot!(refused("softmax", json!({"input": "i64[2, 3]", "dim": -1})), @"`softmax` needs floating-point numbers, not i64[2, 3]; cast it first: `to(…, f32)`");
    assert_snapshot!(refused("softmax", json!({"input": "f32[]", "dim": 1})), @"`softmax` has no dimension 1: f32[] has dimensions -1 to 0; it is a single number, without dimensions");
    assert_snapshot!(refused("layer_norm", json!({"input": "f32[2, 64]", "normalized_shape": -1})), @"`layer_norm` takes sizes in `normalized_shape`, not [-1]");
    assert_snapshot!(refused("layer_norm", json!({"input": "f32[2, 64]", "normalized_shape": [32]})), @"`layer_norm` normalises over [32], but f32[2, 64] does not end in these sizes; `normalized_shape` is the sizes of the last dimensions, not their places");
    assert_snapshot!(refused("layer_norm", json!({"input": "f32[2, 64]", "normalized_shape": [64], "weight": "bf16[64]"})), @"`layer_norm` of f32[2, 64] takes no `weight` of bf16; cast it first: `to(…, f32)`");
}

#[test]
fn products() {
    assert_snapshot!(refused("matmul", json!({"input": "f32[2, 3]", "other": "f32[2, 3]"})), @"`matmul` cannot multiply f32[2, 3] by f32[2, 3]: the left's last size 3 is not the right's 2; a [..., n, k] is multiplied by a [..., k, m]; `transpose` one of them");
    assert_snapshot!(refused("matmul", json!({"input": "f32[2, 3]", "other": "bf16[3, 2]"})), @"`matmul` takes tensors of one number type, not f32[2, 3] and bf16[3, 2]; cast them first: `to(…, f32)`");
    assert_snapshot!(refused("matmul", json!({"input": "f32[]", "other": "f32[3]"})), @"`matmul` multiplies matrices and vectors, not single numbers: f32[] times f32[3]; use `mul`");
    assert_snapshot!(refused("outer", json!({"input": "f32[2, 3]", "other": "f32[3]"})), @"`outer` multiplies vectors, of one dimension each, not f32[2, 3]; write it as `mul` of an `unsqueeze`");
    assert_snapshot!(refused("einsum", json!({"equation": "ij,jk->ik", "operands": ["f32[2, 3]", "f32[4, 5]"]})), @"`einsum` has size 3 for j, and size 4 in operand 1: [4, 5]");
    assert_snapshot!(refused("einsum", json!({"equation": "ij,jk->il", "operands": ["f32[2, 3]", "f32[3, 5]"]})), @r#"`einsum` cannot read the equation "ij,jk->il": the result has 'l', which no operand has; one letter for each dimension, operands apart by commas, the result after `->`: "bij,bjk->bik""#);
    assert_snapshot!(refused("einsum", json!({"equation": "ij,j1", "operands": ["f32[2, 3]", "f32[3, 5]"]})), @r#"`einsum` cannot read the equation "ij,j1": '1' is no letter; one letter for each dimension, operands apart by commas, the result after `->`: "bij,bjk->bik""#);
    assert_snapshot!(refused("einsum", json!({"equation": "ij", "operands": ["f32[2, 3, 4]"]})), @"`einsum` has 2 letters for its operand 0, which has 3 dimensions: [2, 3, 4]; `...` stands for the dimensions that have no letter");
    assert_snapshot!(refused("einsum", json!({"equation": "ii->i", "operands": ["f32[2, 3]"]})), @"`einsum` takes the diagonal i of operand 0, but its sizes 2 and 3 differ: [2, 3]");
    assert_snapshot!(refused("einsum", json!({"equation": "ij,jk", "operands": ["f32[2, 3]"]})), @"`einsum` has 2 operands in its equation and 1 tensors");
}

#[test]
fn order_and_places() {
    assert_snapshot!(refused("topk", json!({"input": "f32[2, 3]", "k": 4})), @"`topk` asks for 4 of the 3 along a dimension of f32[2, 3]");
    assert_snapshot!(refused("topk", json!({"input": "f32[2, 3]", "k": -1})), @"`topk` takes as `k` a number from 0 on, not -1");
    assert_snapshot!(refused("gather", json!({"input": "f32[2, 3]", "dim": 1, "index": "i64[2]"})), @"`gather` takes an index of as many dimensions as f32[2, 3], not i64[2]; `unsqueeze` and `expand` it, or pick whole slices with `index_select`");
    assert_snapshot!(refused("gather", json!({"input": "f32[2, 3]", "dim": 1, "index": "f32[2, 1]"})), @"`gather` takes indices of i64 or i32, not f32[2, 1]; cast it first: `to(…, i64)`");
    assert_snapshot!(refused("gather", json!({"input": "f32[2, 3]", "dim": 1, "index": "i64[4, 1]"})), @"`gather` takes an index no larger than f32[2, 3] apart from dimension 1, not i64[4, 1]; to broadcast, use `take_along_dim`");
    assert_snapshot!(refused("scatter", json!({"input": "f32[2, 3]", "dim": 1, "index": "i64[2, 1]", "src": "i64[2, 1]"})), @"`scatter` writes into f32[2, 3] the same number type, not i64[2, 1]; cast it first: `to(…, f32)`");
    assert_snapshot!(refused("index_select", json!({"input": "f32[2, 3]", "dim": 1, "index": "i64[2, 1]"})), @"`index_select` takes an index of one dimension, not i64[2, 1]; read with an index tensor: `x[index]`");
    assert_snapshot!(refused("getitem", json!({"input": "f32[2, L0, 64]", "index": [2]})), @"`getitem`: index 2 is out of range for dimension 0, of size 2, of [2, L0, 64]: places go from -2 to 1");
    assert_snapshot!(refused("getitem", json!({"input": "f32[2, L0, 64]", "index": [":", -1, ":", 0]})), @"`getitem`: the index names 4 dimensions, and the tensor has 3: [2, L0, 64]");
    assert_snapshot!(refused("getitem", json!({"input": "f32[2, 3]", "index": ["bool[2, 3]"]})), @"`getitem`: a mask bool[2, 3] cannot choose what is read: the result's shape would depend on data; use `where(mask, x, 0)`, which keeps the shape; masks are allowed in writing");
    assert_snapshot!(refused("getitem", json!({"input": "f32[2, 3]", "index": ["f32[2]"]})), @"`getitem`: an index tensor holds i64, i32 or bool, not f32[2]; cast it first: `to(…, i64)`, or `to(…, bool)` for a mask");
    assert_snapshot!(refused("getitem", json!({"input": "f32[2, 3]", "index": ["i64[2]", "i64[3]"]})), @"`getitem`: index tensors of shapes [2] and [3] do not broadcast together");
    assert_snapshot!(refused("getitem", json!({"input": "f32[2, 3]", "index": ["...", "..."]})), @"`getitem`: the index has two ellipses; write `:` for one whole dimension");
    assert_snapshot!(refused("getitem", json!({"input": "f32[2, 3]", "index": ["::-1"]})), @"`getitem`: a slice has the step -1; steps are at least 1; reverse a dimension with `flip`");
    assert_snapshot!(refused("index_put", json!({"input": "f32[2, 3]", "index": [":", -1], "values": "f32[3]"})), @"`index_put` writes f32[3] where the places are [2]; sizes must be equal, or 1 in the value, from the last dimension on");
    assert_snapshot!(refused("index_put", json!({"input": "f32[2, 3]", "index": ["bool[3, 2]"], "values": 0})), @"`index_put`: the mask bool[3, 2] does not have the sizes of the dimensions it stands for, [2, 3] of [2, 3]");
}

#[test]
fn shapes() {
    assert_snapshot!(refused("reshape", json!({"input": "f32[2, 3]", "shape": [4, -1]})), @"`reshape` cannot make [4, -1] of f32[2, 3]: it has 6 elements");
    assert_snapshot!(refused("reshape", json!({"input": "f32[2, 3]", "shape": [-1, -1]})), @"`reshape` can infer one size, not several: [-1, -1]");
    assert_snapshot!(refused("reshape", json!({"input": "f32[2, 3]", "shape": [-2, 3]})), @"`reshape` has a size of -2 in `shape`; sizes are not negative");
    assert_snapshot!(refused("reshape", json!({"input": "f32[2, 3]", "shape": [1, 1, 1, 1, 1, 1, 1, 2, 3]})), @"`reshape` names 9 sizes in `shape`, and 8 is the most");
    assert_snapshot!(refused("permute", json!({"input": "f32[2, 3, 4]", "dims": [0, 1]})), @"`permute` names every dimension of f32[2, 3, 4] once, not [0, 1]; to move a few, use `transpose` or `movedim`");
    assert_snapshot!(refused("squeeze", json!({"input": "f32[1, L0, 64]"})), @"`squeeze` would drop dimension 1 of f32[1, L0, 64] only where L0 turns out to be 1; name the dimensions that are 1, or take one place of it: `x[:, 0]`");
    assert_snapshot!(refused("unsqueeze", json!({"input": "f32[2, 3]", "dim": 3})), @"`unsqueeze` puts a new dimension into f32[2, 3] at -3 to 2, not at 3");
    assert_snapshot!(refused("expand", json!({"input": "f32[2, 3]", "size": [4, 3]})), @"`expand` cannot make [4, 3] of f32[2, 3]: size 2 is not 1; only sizes of 1 expand; `repeat` tiles any");
    assert_snapshot!(refused("repeat", json!({"input": "f32[2, 3]", "repeats": [2]})), @"`repeat` takes a number for each dimension of f32[2, 3], not [2]; 1 leaves a dimension as it is");
    assert_snapshot!(refused("repeat", json!({"input": "f32[2, 3]", "repeats": [1u64 << 40, 1u64 << 40]})), @"`repeat` makes a result f32[2199023255552, 3298534883328], of more elements than the 2147483648 that are allowed");
    assert_snapshot!(refused("cat", json!({"tensors": ["f32[2, 3]", "f32[2, 4]"]})), @"`cat` cannot join f32[2, 4] to f32[2, 3] along dimension 0; all sizes but that dimension's are equal");
    assert_snapshot!(refused("cat", json!({"tensors": ["f32[]", "f32[]"]})), @"`cat` joins along a dimension, and f32[] has none; use `stack`, or `unsqueeze` first");
    assert_snapshot!(refused("stack", json!({"tensors": ["f32[2, L0]", "f32[2, L0 - 1]"]})), @"`stack` joins equal shapes, not f32[2, L0 − 1] and f32[2, L0]");
    assert_snapshot!(refused("split", json!({"input": "f32[6]", "split_size": 0})), @"`split` into pieces of size 0 never ends: f32[6]; `split_size` is the size of a piece, not their number; for that use `chunk`");
    assert_snapshot!(refused("split", json!({"input": "f32[6]", "split_size": [2, 3]})), @"`split` into [2, 3], 5 together, does not make up dimension 0, of size 6, of f32[6]");
    assert_snapshot!(refused("split", json!({"input": "f32[2, L0]", "split_size": 2, "dim": 1})), @"`split` cannot say how many pieces dimension 1 of f32[2, L0] makes before lengths are known; list the pieces' sizes, or read slices: `x[:, :2]`");
    assert_snapshot!(refused("pad", json!({"input": "f32[2, 3]", "pad": [1]})), @"`pad` takes a pair of numbers for each of the last dimensions of f32[2, 3], not [1]; [before, after] of the last dimension, then of the one before it");
    assert_snapshot!(refused("pad", json!({"input": "f32[2, 3]", "pad": [-2, -2]})), @"`pad` by [-2, -2] cuts off more than the 3 of f32[2, 3]");
    assert_snapshot!(refused("roll", json!({"input": "f32[2, 3]", "shifts": [1, 2], "dims": [0]})), @"`roll` takes a shift for each dimension: [1, 2] for [0]");
    assert_snapshot!(refused("tril", json!({"input": "f32[3]"})), @"`tril` needs at least two dimensions: f32[3]");
    assert_snapshot!(refused("diagonal", json!({"input": "f32[2, 3]", "dim1": 1})), @"`diagonal` needs two dimensions of f32[2, 3], not 1 twice");
}

#[test]
fn constructors() {
    assert_snapshot!(refused("zeros", json!({"size": [2, -1]})), @"`zeros` has a size of -1 in `size`; there is nothing to infer it from");
    assert_snapshot!(refused("zeros", json!({"size": [2097152, 1048576]})), @"`zeros` makes a result f32[2097152, 1048576], of more elements than the 2147483648 that are allowed");
    assert_snapshot!(refused("full", json!({"size": [2], "fill_value": 300, "dtype": "u8"})), @"`full` writes 300, which is out of range for u8; use a wider number type");
    assert_snapshot!(refused("arange", json!({"start": 0, "end": 10, "step": -1})), @"`arange` never arrives: from 0 to 10 by -1; the sign of `step` must lead from `start` to `end`");
    assert_snapshot!(refused("arange", json!({"start": 0, "end": 1, "step": 0})), @"`arange` never moves: from 0 to 1 by 0; `step` must not be 0");
    assert_snapshot!(refused("arange", json!({"start": i64::MIN, "end": i64::MAX})), @"`arange` has 18446744073709551615 numbers from -9223372036854775808 to 9223372036854775807 by 1, and 2147483648 is the most");
    assert_snapshot!(refused("arange", json!({"start": 0, "end": "inf"})), @"`arange` has no last number: from 0 to inf by 1");
    assert_snapshot!(refused("randn", json!({"size": [2], "dtype": "i64"})), @"`randn` makes floating-point numbers, not i64; use `randint`");
    assert_snapshot!(refused("randint", json!({"low": 3, "high": 3, "size": [2]})), @"`randint` has no numbers from 3 up to and without 3; `high` must be larger than `low`");
    assert_snapshot!(refused("one_hot", json!({"input": "i64[2]", "num_classes": -1})), @"`one_hot` needs `num_classes` of at least 1, not -1; it cannot be inferred: shapes do not depend on data");
    assert_snapshot!(refused("one_hot", json!({"input": "f32[2]", "num_classes": 3})), @"`one_hot` takes class numbers of i64, not f32[2]; cast it first: `to(…, i64)`");
    assert_snapshot!(refused("eye", json!({"n": -1})), @"`eye` takes as `n` a number from 0 on, not -1");
}
