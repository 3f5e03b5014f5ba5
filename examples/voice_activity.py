"""Voice activity in a streamed recording, with the LSTM of Silero VAD.

The model is a file of the PyPI package silero-vad: convolutions over 32 ms of sound, an LSTM of 128 units that remembers, and
one sigmoid. It runs chunk by chunk with its state, as from a microphone, in ONNX's own evaluator with gpurnn's LSTM inside,
and in ONNX Runtime; both must decide alike. Then the recurrent part alone is timed, one step a chunk.

    pip install 'gpurnn[examples]'
    python examples/voice_activity.py
"""

import ctypes
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

import gpurnn
from gpurnn.interop.onnx import GRU, LSTM

RATE, CHUNK, CONTEXT = 16_000, 512, 64  # samples a second, in a chunk, and of the chunk before
SENTENCES = (
    "A recurrent network remembers what it has heard.",
    "Between two sentences there is nothing but noise.",
    "So it must tell, every thirty-two milliseconds, whether somebody speaks.",
)


def speech(texts):
    """Gives float32 samples at 16 kHz of each text, spoken by espeak-ng."""
    import espeakng_loader

    espeak = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = espeak.espeak_Initialize(2, 0, str(espeakng_loader.get_data_path()).encode(), 0)  # 2: sound to a callback
    blocks = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples, count, events):
        if samples and count:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    espeak.espeak_SetSynthCallback(collect)
    for text in texts:
        blocks.clear()
        data = text.encode()
        espeak.espeak_Synth(data, len(data) + 1, 0, 0, 0, 1, None, None)  # 1: the text is UTF-8
        espeak.espeak_Synchronize()
        sound = np.concatenate(blocks) / np.float32(32768)
        times = np.arange(0, len(sound) / rate, 1 / RATE)
        yield np.interp(times, np.arange(len(sound)) / rate, sound).astype(np.float32)


def recording():
    """Gives samples of sentences with pauses between them, in noise, and tells which of them belong to a sentence."""
    parts = [np.zeros(RATE, np.float32)]
    for sentence in speech(SENTENCES):
        parts += [sentence, np.zeros(int(1.2 * RATE), np.float32)]
    sound = np.concatenate(parts)
    spoken = np.concatenate([np.full(len(part), bool(part.any())) for part in parts])
    noise = np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    return sound + 0.002 * noise, spoken


def stream(run, sound):
    """Gives the probability of speech in each chunk, with the state handed on from one to the next."""
    h = c = np.zeros((1, 1, 128), np.float32)
    context = np.zeros(CONTEXT, np.float32)
    found = []
    for chunk in sound[: len(sound) // CHUNK * CHUNK].reshape(-1, CHUNK):
        x = np.concatenate([context, chunk])[None]
        probability, h, c = run(["speech_probs", "hn", "cn"], {"input": x, "h": h, "c": c})
        found.append(float(np.ravel(probability)[0]))
        context = chunk[-CONTEXT:]
    return np.array(found)


def onnxruntime_session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def lstm_alone(model):
    """Gives the one LSTM of a model as a model of its own."""
    (node,) = [node for node in model.graph.node if node.op_type == "LSTM"]
    weights = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [None] * 3) for name in (node.input[0], *node.input[5:7])]
    outs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in node.output]
    graph = onnx.helper.make_graph([node], "lstm", ends, outs, weights)
    whole = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return whole.SerializeToString(), [end.name for end in ends], [out.name for out in outs]


def microseconds(step, count=2000):
    """Gives the median of one call's time."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(times))


def main():
    path = Path(find_spec("silero_vad").submodule_search_locations[0], "data", "silero_vad_16k_sequence.onnx")
    model = onnx.load(path)
    sound, spoken = recording()
    ours = stream(ReferenceEvaluator(model, new_ops=[LSTM, GRU]).run, sound)
    theirs = stream(onnxruntime_session(str(path)).run, sound)

    x = np.random.default_rng(1).standard_normal((1, 128)).astype(np.float32)
    lstm = gpurnn.from_onnx(path)
    steps, out = lstm.stream(), np.empty((1, 128), np.float32)
    alone, inputs, outputs = lstm_alone(model)
    session = onnxruntime_session(alone)
    state = dict.fromkeys(inputs[1:], np.zeros((1, 1, 128), np.float32))
    gpurnn.set_num_threads(1)
    time_ours = microseconds(lambda: steps.step(x, out))
    time_theirs = microseconds(lambda: session.run(outputs, {inputs[0]: x[None], **state}))

    truth = spoken[: len(ours) * CHUNK].reshape(-1, CHUNK).mean(axis=1) > 0.5
    bars = " ▁▂▃▄▅▆▇█"
    print(f"{len(sound) / RATE:.1f} s of sound, {len(ours)} chunks of 32 ms; each character is 5 of them")
    for name, values in (("somebody speaks", truth), ("gpurnn", ours), ("ONNX Runtime", theirs)):
        means = [values[first : first + 5].mean() for first in range(0, len(values), 5)]
        print(f"{name:>16} |{''.join(bars[round(8 * mean)] for mean in means)}|")
    same = int(((ours > 0.5) == (theirs > 0.5)).sum())
    print(f"same decision in {same} of {len(ours)} chunks, probabilities differ by at most {np.abs(ours - theirs).max():.1e}")
    print(f"right in {((ours > 0.5) == truth).mean():.0%} of the chunks, pauses inside a sentence counted as speech")
    print(f"\n{'LSTM step, 128 -> 128, one row':32}{'median':>10}")
    print(f"{'gpurnn, 1 thread':32}{time_ours:>8.1f} us\n{'ONNX Runtime, 1 thread':32}{time_theirs:>8.1f} us")
    assert same == len(ours)


if __name__ == "__main__":
    main()
