"""The interpreter's warps at work together: shuffles, votes, atomics and matrix products."""

from typing import Any

import numpy as np
import pytest

from ptx_emulator.errors import PTXError
from ptx_emulator.snippets import run, wrap

LANES = np.arange(32)
DECLARED = ".reg .b32 %r<20>; .reg .f32 %f<20>; .reg .b64 %rd<20>; .reg .pred %p<9>;"


def shuffled(mode: str, by: int, clamp: int, threads: int = 64) -> tuple[Any, Any]:
    """Shuffles each thread's number plus 100: what it got, and whether from another lane."""
    got, inside = np.zeros(threads, np.uint32), np.zeros(threads, np.uint32)
    body = f"""
    add.s32 %r1, %t, 100; shfl.sync.{mode}.b32 %r2|%p1, %r1, {by}, {clamp}, 0xffffffff; selp.u32 %r3, 1, 0, %p1;
    add.s64 %rd1, %a0, %o; st.global.u32 [%rd1], %r2; add.s64 %rd2, %a1, %o; st.global.u32 [%rd2], %r3;"""
    assert not run(wrap(body, 2, DECLARED), [got, inside], threads).warnings
    return got, inside


@pytest.mark.parametrize("width", [32, 8])
@pytest.mark.parametrize("by", [0, 1, 5, 31])
def test_shuffles(by: int, width: int) -> None:
    """In segments of `width` lanes, as CUDA's __shfl_sync encodes them."""
    segment = (32 - width) << 8
    lane, first = LANES % width, LANES - LANES % width
    expected = {
        "up": (LANES - by, lane >= by, segment),
        "down": (LANES + by, lane + by < width, segment | 31),
        "bfly": (LANES ^ by, (LANES ^ by) < first + width, segment | 31),
        "idx": (first + by % width, np.full(32, True), segment | 31),
    }
    for mode, (source, inside, clamp) in expected.items():
        source = np.where(inside, source, LANES)
        got, valid = shuffled(mode, by, clamp)
        for warp in range(2):
            np.testing.assert_array_equal(got[32 * warp :][:32], source + 32 * warp + 100, mode)
            np.testing.assert_array_equal(valid[32 * warp :][:32], inside, mode)


def test_a_shuffle_up_stops_at_its_clamp() -> None:
    got, valid = shuffled("up", 3, 8)
    inside = LANES - 3 >= 8
    np.testing.assert_array_equal(valid[:32], inside)
    np.testing.assert_array_equal(got[:32], np.where(inside, LANES - 3, LANES) + 100)


def test_votes() -> None:
    votes = {"sync.ballot": "b32", "sync.all": "pred", "sync.any": "pred"}
    results = {}
    for name, kind in votes.items():
        out = np.zeros(64, np.uint32)
        store = "%r1" if kind == "b32" else "%r2"
        result = "%r1" if kind == "b32" else "%p2"
        body = f"""
        setp.ge.u32 %p1, %t, 30; vote.{name}.{kind} {result}, %p1, 0xffffffff; selp.u32 %r2, 1, 0, %p2;
        add.s64 %rd1, %a0, %o; st.global.u32 [%rd1], {store};"""
        assert not run(wrap(body, 1, DECLARED), [out], 64).warnings
        results[name] = [int(out[0]), int(out[32])]
    assert results == {"sync.ballot": [0xC0000000, 0xFFFFFFFF], "sync.all": [0, 1], "sync.any": [1, 1]}


def test_the_active_mask_is_of_those_who_came() -> None:
    out = np.zeros(32, np.uint32)
    body = "setp.ge.u32 %p1, %t, 5; @%p1 bra E; activemask.b32 %r1; add.s64 %rd1, %a0, %o; st.global.u32 [%rd1], %r1; E:"
    run(wrap(body, 1, DECLARED), [out], 32)
    np.testing.assert_array_equal(out, [31] * 5 + [0] * 27)


ATOMICS = {"add.u32": 32 * 31 // 2 + 7, "min.u32": 0, "max.u32": 31, "or.b32": 31, "and.b32": 0, "xor.b32": 7}


@pytest.mark.parametrize("operation", ATOMICS)
def test_atomics(operation: str) -> None:
    place, before = np.array([7], np.uint32), np.zeros(32, np.uint32)
    body = f"atom.global.{operation} %r1, [%a0], %t; add.s64 %rd1, %a1, %o; st.global.u32 [%rd1], %r1;"
    assert not run(wrap(body, 2, DECLARED), [place, before], 32).warnings
    assert place[0] == ATOMICS[operation]
    assert 7 in before


def test_compare_and_swap_lets_one_win() -> None:
    place, before = np.array([99], np.uint32), np.zeros(32, np.uint32)
    body = "atom.global.cas.b32 %r1, [%a0], 99, %t; add.s64 %rd1, %a1, %o; st.global.u32 [%rd1], %r1;"
    run(wrap(body, 2, DECLARED), [place, before], 32)
    winner = np.flatnonzero(before == 99)
    assert len(winner) == 1
    assert place[0] == winner[0]


def layout(thread: tuple[Any, Any], values: tuple[Any, Any]) -> Any:
    """(32, registers): where lanes hold a matrix flattened by columns, as CUTLASS publishes it (shapes and strides)."""
    lanes = LANES % thread[0][0] * thread[1][0] + LANES // thread[0][0] * thread[1][1]
    offsets = [0]
    for size, stride in zip(*values, strict=True):
        offsets = [o + stride * k for k in range(size) for o in offsets]
    return lanes[:, None] + np.array(offsets)


# MMA_Traits<SM80_16x8x16_F32F16F16F32_TN>, of the PTX ISA's m16n8k8 of .f16, and <SM80_16x8x8_F32TF32TF32F32_TN>: A as
# m + 16 k, B as n + 8 k, C as m + 16 n
C_LAYOUT = layout(((4, 8), (32, 1)), ((2, 2), (16, 8)))
FRAGMENTS = {
    ("f16", 16): (layout(((4, 8), (32, 1)), ((2, 2, 2), (16, 8, 128))), layout(((4, 8), (16, 1)), ((2, 2), (8, 64)))),
    ("f16", 8): (layout(((4, 8), (32, 1)), ((2, 2), (16, 8))), layout(((4, 8), (16, 1)), ((2,), (8,)))),
    ("tf32", 8): (layout(((4, 8), (16, 1)), ((2, 2), (8, 64))), layout(((4, 8), (8, 1)), ((2,), (32,)))),
}


def load(base: int, first: int, count: int) -> str:
    """`count` registers a lane, side by side, into %r`first`..."""
    lines = f"mul.wide.u32 %rd1, %t, {4 * count}; add.s64 %rd2, %a{base}, %rd1;"
    return lines + "".join(f"ld.global.b32 %r{first + k}, [%rd2+{4 * k}];" for k in range(count))


def product(kind: str, k: int) -> str:
    """d = a b + c of arrays that lie lane by lane."""
    of_b = FRAGMENTS[kind, k][1].shape[1] * (2 if kind == "f16" else 4) // 4
    registers = f"{names(10, 4)}, {names(0, 2 * of_b)}, {names(4, of_b)}, {names(6, 4)}"
    body = load(0, 0, 2 * of_b) + load(1, 4, of_b) + load(2, 6, 4)
    body += f"mma.sync.aligned.m16n8k{k}.row.col.f32.{kind}.{kind}.f32 {registers};"
    body += f"mul.wide.u32 %rd1, %t, 16; add.s64 %rd2, %a3, %rd1; st.global.v4.b32 [%rd2], {names(10, 4)};"
    return wrap(body, 4, DECLARED)


def names(first: int, count: int) -> str:
    return "{" + ", ".join(f"%r{first + k}" for k in range(count)) + "}"


@pytest.mark.parametrize(("kind", "k"), FRAGMENTS)
def test_matrix_products(kind: str, k: int) -> None:
    a_layout, b_layout = FRAGMENTS[kind, k]
    dtype = np.float16 if kind == "f16" else np.float32
    rng = np.random.default_rng(3)
    a, b = rng.integers(-8, 8, (16, k)).astype(dtype), rng.integers(-8, 8, (k, 8)).astype(dtype)
    c = rng.integers(-8, 8, (16, 8)).astype(np.float32)
    held = [a.T.ravel()[a_layout].ravel().view(np.uint32), b.ravel()[b_layout].ravel().view(np.uint32)]
    held += [c.T.ravel()[C_LAYOUT].ravel().view(np.uint32), np.zeros(128, np.float32)]
    assert not run(product(kind, k), held, 32).warnings
    d = np.zeros(128)
    d[C_LAYOUT.ravel()] = held[3]
    np.testing.assert_array_equal(d.reshape(8, 16).T, a.astype(float) @ b.astype(float) + c)
    with pytest.raises(PTXError, match="part of a warp"):
        run(product(kind, k), held, 16)


@pytest.mark.parametrize("k", [8, 16])
def test_float16_products_are_exact(k: int) -> None:
    """The lowest bit of (1 + 2**-10)**2 is 2**-20; the sum keeps it."""
    factors = [np.full(32 * count, 1 + 2.0**-10, np.float16).view(np.uint32) for count in (k // 2, k // 4)]
    held = [*factors, np.zeros(128, np.uint32), np.zeros(128, np.float32)]
    run(product("f16", k), held, 32)
    assert (held[3] == k * (1 + 2.0**-9 + 2.0**-20)).all()


def test_tf32_products_ignore_the_lowest_bits() -> None:
    bits = np.float32(1 + 2.0**-11 + 2.0**-20)
    held = [np.full(128, bits).view(np.uint32), np.ones(64, np.float32).view(np.uint32), np.zeros(128, np.uint32)]
    held.append(np.zeros(128, np.float32))
    run(product("tf32", 8), held, 32)
    assert (held[3] == 8).all()


def test_sectors_and_bank_conflicts_are_counted() -> None:
    """Side by side: four sectors a warp. A column of a 32 x 32 tile: 32 turns; with a row of 33, one."""
    body = """
    add.s64 %rd1, %a0, %o; ld.global.f32 %f1, [%rd1];
    mov.u32 %r1, tile; mul.lo.s32 %r2, %t, {}; add.s32 %r1, %r1, %r2; st.shared.f32 [%r1], %f1;"""
    turns = {}
    for row in (32, 33):
        ptx = wrap(body.format(4 * row), 1, DECLARED, ".shared .align 4 .b8 tile[8192];")
        launch = run(ptx, [np.zeros(32, np.float32)], 32, detailed=True)
        turns[row] = launch.counters.cycles["store"]
        assert launch.counters.sectors["load"] == 4
        assert launch.counters.bytes["global", "load"] == 128
    assert turns == {32: 32, 33: 1}
