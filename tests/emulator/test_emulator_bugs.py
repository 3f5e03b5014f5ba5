"""Bugs sown in PTX programs: the interpreter finds each, and has nothing to say about the right twin."""

from typing import Any

import numpy as np
import pytest

from ptx_emulator.errors import PTXError
from ptx_emulator.scheduler import Launch
from ptx_emulator.snippets import run, wrap

SHARED = ".shared .align 16 .b8 buffer[4096];"
DECLARED = ".reg .b32 %r<20>; .reg .f32 %f<20>; .reg .b64 %rd<20>; .reg .pred %p<9>;"


def words(n: int) -> Any:
    return np.arange(1, n + 1, dtype=np.float32)


def warnings(launch: Launch) -> str:
    return "; ".join(launch.warnings)


def sow(body: str, arrays: list[Any], threads: int, blocks: int = 1, **options: Any) -> str:
    return warnings(run(wrap(body, len(arrays), DECLARED, SHARED), arrays, threads, blocks, **options))


def reverse(barrier: str) -> str:
    """Through shared memory: y[t] = x[63 - t]."""
    return f"""
    add.s64 %rd1, %a0, %o; ld.global.f32 %f1, [%rd1];
    mov.u32 %r1, buffer; shl.b32 %r2, %t, 2; add.s32 %r3, %r1, %r2; st.shared.f32 [%r3], %f1;
    {barrier}
    sub.s32 %r4, 252, %r2; add.s32 %r5, %r1, %r4; ld.shared.f32 %f2, [%r5];
    add.s64 %rd2, %a1, %o; st.global.f32 [%rd2], %f2;"""


def test_missing_barrier() -> None:
    x, y = words(64), np.zeros(64, np.float32)
    assert not sow(reverse("bar.sync 0;"), [x, y], 64)
    np.testing.assert_array_equal(y, x[::-1])
    assert "reads what thread" in sow(reverse(""), [x, y], 64)


def test_a_warp_barrier_orders_one_warp_only() -> None:
    x, y = words(64), np.zeros(64, np.float32)
    inside = reverse("bar.warp.sync 0xffffffff;").replace("252", "124")
    assert not sow(inside, [x, y], 32)
    assert "reads what thread" in sow(reverse("bar.warp.sync 0xffffffff;"), [x, y], 64)


def test_overwriting_what_others_still_read() -> None:
    twice = reverse("bar.sync 0;") + "{} st.shared.f32 [%r3], %f2;"
    x, y = words(64), np.zeros(64, np.float32)
    assert not sow(twice.format("bar.sync 0;"), [x, y], 64)
    assert "read" in sow(twice.format(""), [x, y], 64)


def test_divergent_barrier() -> None:
    body = "setp.lt.u32 %p1, %t, 16; @%p1 bra A; bar.sync 0; bra B; A: bar.sync 0; B:"
    assert "divergent" in sow(body, [words(1)], 64)
    assert not sow(body.replace("%t, 16", "%t, 64"), [words(1)], 64)


def test_leaving_before_a_barrier() -> None:
    body = "setp.ge.u32 %p1, %t, 40; @%p1 bra E; bar.sync 0; E:"
    assert "left the kernel" in sow(body, [words(1)], 64)
    assert not sow(body.replace("40", "64"), [words(1)], 64)


STORE_ONE = "mov.f32 %f1, 0f3F800000; add.s64 %rd1, %a0, %o; st.global.f32 [%rd1{}], %f1;"


def test_out_of_bounds() -> None:
    assert not sow(STORE_ONE.format(""), [words(64)], 64)
    with pytest.raises(PTXError, match="out of bounds: 4 bytes at byte 256"):
        sow(STORE_ONE.format(""), [words(64)], 128)
    with pytest.raises(PTXError, match="out of bounds"):
        sow(STORE_ONE.format("+4"), [words(64)], 64)
    with pytest.raises(PTXError, match="out of bounds"):
        sow(STORE_ONE.format("+-4"), [words(64)], 64)


def test_a_vector_that_reaches_past_the_end() -> None:
    body = "ld.global.v2.f32 {%f1, %f2}, [%a0+8];"
    assert not sow(body, [words(4)], 1)
    with pytest.raises(PTXError, match="out of bounds: 8 bytes at byte 8"):
        sow(body, [words(3)], 1)


def test_out_of_bounds_of_shared_memory() -> None:
    body = (
        "mov.f32 %f1, 0f3F800000; mov.u32 %r1, buffer; shl.b32 %r2, %t, 2; add.s32 %r1, %r1, %r2; st.shared.f32 [%r1+{}], %f1;"
    )
    assert not sow(body.format(3840), [words(1)], 64)
    with pytest.raises(PTXError, match="out of bounds: shared byte 4096 of 4096"):
        sow(body.format(3844), [words(1)], 64)


def test_misaligned_vector() -> None:
    body = "add.s64 %rd1, %a0, %o; ld.global.v4.f32 {{%f1, %f2, %f3, %f4}}, [%rd1];{}"
    aligned = "shl.b64 %o, %o, 2;" + body.format("")
    assert not sow(aligned, [words(64)], 16)
    with pytest.raises(PTXError, match="misaligned access of 16 bytes by thread 1"):
        sow(body.format(""), [words(64)], 16)


def test_shared_memory_that_nobody_wrote() -> None:
    body = "mov.u32 %r1, buffer; {} ld.shared.f32 %f1, [%r1];"
    assert "not initialised" in sow(body.format(""), [words(1)], 32)
    assert not sow(body.format("st.shared.f32 [%r1], 0f00000000;"), [words(1)], 1)


def test_unordered_sum() -> None:
    plain = "ld.global.f32 %f1, [%a0]; add.f32 %f1, %f1, 0f3F800000; st.global.f32 [%a0], %f1;"
    total = np.zeros(1, np.float32)
    assert "race" in sow(plain, [total], 32, 2)
    total[0] = 0
    assert not sow("red.global.add.f32 [%a0], 0f3F800000;", [total], 32, 2)
    assert total[0] == 64


def test_a_copy_that_nobody_waits_for() -> None:
    body = """
    shl.b64 %rd1, %o, 2; add.s64 %rd2, %a0, %rd1; mov.u32 %r1, buffer; shl.b32 %r2, %t, 4; add.s32 %r3, %r1, %r2;
    cp.async.cg.shared.global [%r3], [%rd2], 16; cp.async.commit_group; {}
    bar.sync 0;
    shl.b32 %r4, %t, 2; add.s32 %r5, %r1, %r4; ld.shared.f32 %f1, [%r5]; add.s64 %rd3, %a1, %o; st.global.f32 [%rd3], %f1;"""
    x, y = words(256), np.zeros(64, np.float32)
    assert not sow(body.format("cp.async.wait_group 0;"), [x, y], 64)
    np.testing.assert_array_equal(y, x[:64])
    for missing in ("", "cp.async.wait_group 1;"):
        found = sow(body.format(missing), [x, y], 64)
        assert "still filling" in found
        assert "nobody waited" in found
    late = body.format("").replace("bar.sync 0;", "bar.sync 0; cp.async.wait_group 0;")
    assert "race" in sow(late, [x, y], 64)  # each has waited for its own bytes only


def test_copies_arrive_in_the_order_of_their_groups() -> None:
    copy = "cp.async.ca.shared.global [%r3+{0}], [%rd2+{0}], 4; cp.async.commit_group;"
    body = f"""
    add.s64 %rd2, %a0, %o; mov.u32 %r1, buffer; shl.b32 %r2, %t, 2; add.s32 %r3, %r1, %r2;
    {copy.format(0)} {copy.format(128)}
    cp.async.wait_group 1; ld.shared.f32 %f1, [%r3]; {{}} cp.async.wait_all;
    add.s64 %rd3, %a1, %o; st.global.f32 [%rd3], %f1;"""
    x, y = words(64), np.zeros(32, np.float32)
    assert not sow(body.format(""), [x, y], 32)
    np.testing.assert_array_equal(y, x[:32])
    assert "still filling" in sow(body.format("ld.shared.f32 %f2, [%r3+128];"), [x, y], 32)


def test_a_shuffle_of_half_a_warp() -> None:
    body = "setp.ge.u32 %p1, %t, {}; @%p1 bra E; shfl.sync.down.b32 %r1, %t, 8, 31, 0xffffffff; E:"
    assert "do not take part" in sow(body.format(16), [words(1)], 32)
    assert not sow(body.format(32), [words(1)], 32)


def test_reading_what_the_launch_writes_as_constant() -> None:
    body = "add.s64 %rd1, %a0, %o; st.global.f32 [%rd1], 0f3F800000; ld.global{}.f32 %f1, [%rd1];"
    assert "nc" in sow(body.format(".nc"), [words(32)], 32)
    assert not sow(body.format(""), [words(32)], 32)


def exchange(before: str, arrive: str, poll: str, after: str) -> str:
    """Blocks write a row, meet at a ticket, and read the row of the next block: y[b] = x of block b + 1."""
    return f"""
    mov.u32 %r1, %ctaid.x; mov.u32 %r2, %nctaid.x; mov.u32 %r3, %ntid.x;
    mad.lo.s32 %r4, %r1, %r3, %t; mul.wide.u32 %rd1, %r4, 4; add.s64 %rd2, %a0, %rd1;
    cvt.rn.f32.u32 %f1, %r4; st.global.f32 [%rd2], %f1;
    {before}
    setp.ne.u32 %p1, %t, 0; @%p1 bra JOIN;
    {arrive}
    SPIN: {poll} setp.lt.u32 %p2, %r5, %r2; @%p2 bra SPIN;
    JOIN: {after}
    add.s32 %r6, %r1, 1; rem.u32 %r6, %r6, %r2; mad.lo.s32 %r7, %r6, %r3, %t; mul.wide.u32 %rd3, %r7, 4;
    add.s64 %rd4, %a0, %rd3; ld.global.f32 %f2, [%rd4]; add.s64 %rd5, %a1, %rd1; st.global.f32 [%rd5], %f2;"""


ARRIVE, POLL, BAR = "red.release.gpu.global.add.u32 [%a2], 1;", "ld.acquire.gpu.global.u32 %r5, [%a2];", "bar.sync 0;"


def exchanged(before: str = BAR, arrive: str = ARRIVE, poll: str = POLL, after: str = BAR, threads: int = 64) -> str:
    x, y = np.zeros(4 * threads, np.float32), np.zeros(4 * threads, np.float32)
    found = sow(exchange(before, arrive, poll, after), [x, y, np.zeros(1, np.uint32)], threads, 4)
    np.testing.assert_array_equal(y, np.roll(np.arange(4 * threads), -threads))
    return found


def test_a_grid_barrier_of_release_and_acquire() -> None:
    assert not exchanged()
    assert not exchanged(
        arrive="atom.add.release.gpu.global.u32 %r8, [%a2], 1;".replace("add.release.gpu.global", "release.gpu.global.add")
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"before": ""},
        {"after": ""},
        {"arrive": "red.relaxed.gpu.global.add.u32 [%a2], 1;"},
        {"arrive": "red.global.add.u32 [%a2], 1;"},
        {"poll": "ld.relaxed.gpu.global.u32 %r5, [%a2];"},
        {"poll": "ld.volatile.global.u32 %r5, [%a2];"},
    ],
    ids=["no-barrier-before", "no-barrier-after", "relaxed-add", "plain-add", "relaxed-load", "volatile-load"],
)
def test_a_wrong_grid_barrier(wrong: dict[str, str]) -> None:
    """The values are right, since all threads run in step: only the clocks tell."""
    assert "race: reads what" in exchanged(**wrong)


def test_blocks_of_one_warp_meet_with_warp_barriers() -> None:
    warp = "bar.warp.sync 0xffffffff;"
    assert not exchanged(before=warp, after=warp, threads=32)
    assert "race" in exchanged(before=warp, after=warp, threads=64)


def test_a_flag_that_is_overwritten_without_release() -> None:
    """st.release publishes; a plain store over it publishes nothing."""
    body = """
    mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 1; @%p1 bra READ;
    st.global.f32 [%a0], 0f3F800000; bar.warp.sync 1; st.release.gpu.global.u32 [%a1], 1; {} bra END;
    READ: SPIN: ld.acquire.gpu.global.u32 %r2, [%a1]; setp.eq.u32 %p2, %r2, 0; @%p2 bra SPIN;
    bar.warp.sync 1; ld.global.f32 %f1, [%a0]; st.global.f32 [%a2], %f1; END:"""
    arrays = [words(1), np.zeros(1, np.uint32), np.zeros(1, np.float32)]
    assert not sow(body.format(""), [*arrays], 1, 2)
    arrays[1][0] = 0
    again = body.format("").replace("[%a1], 1; ", "[%a1], 0; st.relaxed.gpu.global.u32 [%a1], 1; ")
    assert "race" in sow(again, arrays, 1, 2)


COOPERATIVE = """
    mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.s32 %r3, %r1, %r2, %t; mul.wide.u32 %rd1, %r3, 4;
    add.s64 %rd2, %a0, %rd1; cvt.rn.f32.u32 %f1, %r3; st.global.f32 [%rd2], %f1;
    {}
    sub.s32 %r4, 127, %r3; mul.wide.u32 %rd3, %r4, 4; add.s64 %rd4, %a0, %rd3; ld.global.f32 %f2, [%rd4];
    add.s64 %rd5, %a1, %rd1; st.global.f32 [%rd5], %f2; END:"""
GRID_SYNC = "{ .param .b64 param0; .param .b32 retval0; call.uni (retval0), cudaCGSynchronize, (param0); }"


def test_the_grid_barrier_of_cooperative_groups() -> None:
    x, y = np.zeros(128, np.float32), np.zeros(128, np.float32)
    assert not sow(COOPERATIVE.format(GRID_SYNC), [x, y], 32, 4)
    np.testing.assert_array_equal(y, np.arange(128)[::-1])
    assert "race" in sow(COOPERATIVE.format("bar.sync 0;"), [x, y], 32, 4)
    skipped = "setp.eq.u32 %p1, %r1, 0; @%p1 bra END;" + GRID_SYNC
    with pytest.raises(PTXError, match="grid barrier that not all threads reach"):
        sow(COOPERATIVE.format(skipped), [x, y], 32, 4)


def test_three_readers_of_a_word_are_all_remembered() -> None:
    """Blocks 0, 1 and 2 read; a writer among them races with the others, whichever read last."""
    for writer in range(3):
        body = f"""
        mov.u32 %r1, %ctaid.x; ld.global.f32 %f1, [%a0]; bar.sync 0;
        setp.ne.u32 %p1, %r1, {writer}; @%p1 bra END; setp.ne.u32 %p2, %t, 0; @%p2 bra END; st.global.f32 [%a0], %f1; END:"""
        assert "writes what" in sow(body, [words(1)], 32, 3)


def test_an_older_reader_is_remembered_beside_the_last() -> None:
    """Block 0 reads, then block 1, then block 0 again, which writes."""
    body = """
    mov.u32 %r1, %ctaid.x; setp.ne.u32 %p1, %r1, 0;
    @%p1 bra ONE; ld.global.f32 %f1, [%a0];
    ONE: @!%p1 bra ZERO; ld.global.f32 %f1, [%a0];
    ZERO: @%p1 bra END; ld.global.f32 %f2, [%a0]; st.global.f32 [%a0], 0f00000000; END:"""
    assert "block 1 read" in sow(body, [words(1)], 1, 2)
    assert not sow(body, [words(1)], 1, 1)


def test_a_release_covers_nothing_after_the_last_barrier_of_its_block() -> None:
    """Though another block has met at a barrier since."""
    body = """
    mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 1; setp.ne.u32 %p2, %t, 0;
    @%p1 bra OTHER; add.s64 %rd1, %a0, %o; st.global.f32 [%rd1], 0f3F800000; {}
    OTHER: @!%p1 bra RELEASE; bar.sync 0; bra WAIT;
    RELEASE: @%p2 bra END; red.release.gpu.global.add.u32 [%a1], 1; bra END;
    WAIT: @%p2 bra JOIN; SPIN: ld.acquire.gpu.global.u32 %r2, [%a1]; setp.eq.u32 %p3, %r2, 0; @%p3 bra SPIN;
    JOIN: bar.sync 0; add.s64 %rd2, %a0, %o; ld.global.f32 %f1, [%rd2]; add.s64 %rd3, %a2, %o; st.global.f32 [%rd3], %f1;
    END:"""
    arrays = [np.zeros(64, np.float32), np.zeros(1, np.uint32), np.zeros(64, np.float32)]
    assert not sow(body.format("bar.sync 0;"), arrays, 64, 2)
    arrays[1][0] = 0
    assert "race: reads what" in sow(body.format(""), arrays, 64, 2)


def test_registers_keep_their_values_when_a_copy_changes() -> None:
    y = np.zeros(32, np.uint32)
    body = """
    add.s32 %r1, %t, 100; mov.u32 %r2, %r1; setp.lt.u32 %p1, %t, 5; @%p1 bra SKIP; mov.u32 %r2, 7;
    SKIP: add.s32 %r3, %r1, %r2; add.s64 %rd1, %a0, %o; st.global.u32 [%rd1], %r3;"""
    assert not sow(body, [y], 32)
    lanes = np.arange(32)
    np.testing.assert_array_equal(y, np.where(lanes < 5, 2 * (lanes + 100), lanes + 107))


def test_more_threads_than_compiled_for() -> None:
    ptx = wrap("", 1).replace("{\n.reg", ".maxntid 32, 1, 1\n{\n.reg", 1)
    run(ptx, [words(1)], 32)
    with pytest.raises(PTXError, match="compiled for at most 32"):
        run(ptx, [words(1)], 64)


def test_calls_and_partial_barriers_are_refused() -> None:
    for body in ("call.uni (retval0), other, (param0);", "bar.sync 1, 32;", "@%p1 bar.sync 0;"):
        with pytest.raises(PTXError):
            sow(body, [words(1)], 32)


def test_a_deadlock_is_an_error() -> None:
    with pytest.raises(PTXError, match="deadlock"):
        sow("setp.ge.u32 %p1, %t, 16; @%p1 bra E; bar.sync 0; E:" + GRID_SYNC, [words(1)], 32)
