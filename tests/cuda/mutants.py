"""Mistakes planted in csrc/cuda, one at a time: does the shim catch each?  `make mutants`; python tests/cuda/mutants.py [NAME].

Every mutation is exact text: it must stand in the source once, so a source that moves on takes its mutations along or this
script fails.  The changed copy is built like the real one, and a test has to fail, to crash or to hang.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPY = ROOT / "build" / "mutants"
PATIENCE = 120  # seconds that a test may take: many times what it needs

OWN_TEST = {name: "dit_operations" for name in ("attention.cu", "dit_context.cu", "element.h", "linear.cu")}
"""The test that comes first, where it has another name."""
OF_KIND = {"graph": "step", "pieces": "noising", "layout": "noising", "vectors": "noising", "rounding": "noising"}
OF_KIND |= {
    "mix": "noising",
    "upload": "noising",
    "batch": "loop",
    "results": "loop",
    "launch": "loop",
    "device": "loop",
}
OF_KIND |= {"failure": "loop", "life": "loop"}
"""The same by the first word of a mutant's name: what is caught sooner costs less."""

# name, file, text, what it becomes
MUTANTS = [
    ("noise: a slice's odd beginning is forgotten", "noise.cu", "4 * block - params.first;", "4 * (block - params.first / 4);"),
    ("noise: the tail is written past the end", "noise.cu", "if (e + i >= 0 && e + i < params.count)", "if (e + i >= 0)"),
    ("noise: elements before the slice are written", "noise.cu", "if (e + i >= 0 && ", "if ("),
    ("noise: 32-bit element index", "noise.cu", "= 4 * block - params.first;", "= (int)(4 * block - params.first);"),
    ("noise: the last block of threads is missing", "noise.cu", "(n_blocks + NOISE_THREADS - 1) /", "n_blocks /"),
    ("noise: the last thread leaves too soon", "noise.cu", "if (e >= params.count)", "if (e + 4 >= params.count)"),
    ("noising: rows a block apart", "noising.cu", "params.x_t + row * n_elem", "params.x_t + row * DC_BLOCK"),
    ("noising: a piece's last row is forgotten", "noising.cu", "+ piece.n_rows; row++", "+ piece.n_rows - 1; row++"),
    (
        "noising: 32-bit element index",
        "noising.cu",
        "(int64_t)(blockIdx.x % params.n_blocks) * DC_BLOCK",
        "(int)(blockIdx.x % params.n_blocks) * DC_BLOCK",
    ),
    (
        "noising: pieces and blocks change places",
        "noising.cu",
        "params.pieces[blockIdx.x / params.n_blocks]",
        "params.pieces[blockIdx.x % params.n_blocks]",
    ),
    (
        "noising: halves leave the second four unmade",
        "noising.cu",
        "dc_mix4(x_t + i, &piece, e + i, n_elem);",
        "dc_mix4(x_t + i, &piece, e, n_elem);",
    ),
    ("noising: halves are written as brain floats", "noising.cu", "launch<half_bits>", "launch<bfloat_bits>"),
    ("noising: channels last are written first", "noising.cu", "if (IS_LAST)", "if (false)"),
    ("noising: pieces for nothing are made", "noising.cu", "|| piece.n_rows == 0)", ")"),
    ("layout: channels and positions change places", "element.h", "&row[place.position * n_channels + place.channel]", "&row[place.channel * n_channels + place.position]"),
    ("layout: a row's end is forgotten", "element.h", "if (e + i < n_elem)\n            dc_narrow(&row[place", "if (true)\n            dc_narrow(&row[place"),
    ("layout: positions run past their channel", "element.h", "if (++place->position == n_positions)", "if (++place->position > n_positions)"),
    ("layout: 32-bit places", "element.h", "n_elem <= UINT32_MAX ?", "true ?"),
    ("layout: the answer's other channels are taken for none", "eps_error.cu", "params.n_positions, params.position_stride)", "params.n_positions, n_elem / params.n_positions)"),
    ("layout: an answer with channels last is read as dense", "eps_error.cu", "prediction.n_positions != 0 ? eps_error_kernel<T, true>", "false ? eps_error_kernel<T, true>"),
    ("rounding: brain floats are cut off", "element.h", "dc_round_bfloat16(value); /*", "(uint16_t)(dc_round_bfloat16(value) & 0xfffe); /*"),
    ("vectors: halves are stored four apart", "element.h", "((uint4 *)row)[(e + first) / DC_AT_ONCE<T>]", "((uint4 *)row)[(e + first) / 4]"),
    ("noising: (p, q) instead of (alpha, sigma)", "noising.cu", "n_elem, false)", "n_elem, true)"),
    ("vectors: alignment to four bytes is enough", "element.h", "(uintptr_t)data % 16 == 0", "(uintptr_t)data % 4 == 0"),
    (
        "vectors: a load past the end",
        "piece.h",
        "if (e + 4 <= n_elem && dc_is_aligned(data)) {\n        dc_load4",
        "if (dc_is_aligned(data)) {\n        dc_load4",
    ),
    (
        "vectors: a store past the end",
        "element.h",
        "if (e + DC_UNIT<T> <= n_elem && dc_is_aligned(row)) {",
        "if (dc_is_aligned(row)) {",
    ),
    ("vectors: the tail is not written", "element.h", "if (e + i < n_elem)\n            dc_narrow(&row[e", "if (e + 4 <= n_elem)\n            dc_narrow(&row[e"),
    ("vectors: two components change places", "piece.h", "out[0] = four.x, out[1] = four.y", "out[0] = four.y, out[1] = four.x"),
    ("noise: 32-bit counter", "piece.h", "(uint64_t)e / 4);", "(uint64_t)((int)e / 4));"),
    ("noise: radius and angle change places", "piece.h", "&eps[3], words.w2, words.w3", "&eps[3], words.w3, words.w2"),
    ("noise: one block of four everywhere", "piece.h", "key.timestep, block);", "key.timestep, block & ~1ull);"),
    ("mix: given noise is ignored", "piece.h", "if (piece->eps != NULL)", "if (piece->eps != NULL && e < 0)"),
    ("mix: a and b change places", "piece.h", "piece->a, x_start[i], piece->b, eps[i]", "piece->b, x_start[i], piece->a, eps[i]"),
    ("eps_error: no barrier before the sum", "eps_error.cu", "        __syncthreads();\n        if (warp", "        if (warp"),
    ("eps_error: no barrier before the next rows", "eps_error.cu", "__syncthreads(); /* terms are written again */", ""),
    (
        "eps_error: a barrier that not every warp reaches",
        "eps_error.cu",
        "__syncthreads(); /* terms are written again */",
        "if (warp < rows)\n            __syncthreads();",
    ),
    ("eps_error: a mask of half a warp", "eps_error.cu", "EVERY_LANE = 0xffffffffu", "EVERY_LANE = 0x0000ffffu"),
    ("eps_error: the tree begins too low", "eps_error.cu", "width = LANES / 2", "width = LANES / 4"),
    ("eps_error: lanes are neighbours' runs", "eps_error.cu", "terms[e + lane]", "terms[lane * LANES + e / LANES]"),
    ("eps_error: the tree in float32", "eps_error.cu", "double total = sum;", "float total = sum;"),
    (
        "eps_error: elements past the end count",
        "eps_error.cu",
        "(int64_t)block * DC_BLOCK + in_block + j < n_elem",
        "in_block + j < DC_BLOCK",
    ),
    ("eps_error: rows are taken for dense", "eps_error.cu", "+ row + r) * params.row_stride", "+ row + r) * n_elem"),
    (
        "eps_error: 32-bit row offset",
        "eps_error.cu",
        "(piece.first_row + row + r) * params.row_stride",
        "(int)((int)(piece.first_row + row + r) * (unsigned)params.row_stride)",
    ),
    ("eps_error: every piece begins at row 0", "eps_error.cu", "(piece.first_row + row + r)", "(row + r)"),
    ("eps_error: sums of every piece begin at row 0", "eps_error.cu", "(piece.first_row + row + warp)", "(row + warp)"),
    ("eps_error: halves are read as brain floats", "eps_error.cu", "? kernel_of<half_bits>", "? kernel_of<bfloat_bits>"),
    ("eps_error: one row's alignment for all", "eps_error.cu", "dc_is_aligned(data);", "dc_is_aligned(params.prediction);"),
    ("eps_error: a vector load past the end", "element.h", "!is_aligned || e + DC_UNIT<T> > n_elem", "!is_aligned"),
    (
        "eps_error: targets of halves in the order of floats",
        "eps_error.cu",
        "i % DC_UNIT<T>;\n        target4",
        "i % 4;\n        target4",
    ),
    ("eps_error: warps without a row add one up", "eps_error.cu", "if (warp < rows) {", "if (warp < ROWS) {"),
    ("eps_error: every lane writes the sum", "eps_error.cu", "if (lane == 0)\n                params.sums", "params.sums"),
    ("eps_error: shared memory for one row", "eps_error.cu", "ROWS * DC_BLOCK * sizeof(float),", "DC_BLOCK * sizeof(float),"),
    ("eps_error: the target of x_start is not scaled", "eps_error.cu", "DC_MUL(piece->a, out[i])", "out[i]"),
    ("eps_error: l1 where l2 is asked", "eps_error.cu", "loss == DC_LOSS_L2   ? dc_loss_l2", "loss == DC_LOSS_L2   ? dc_loss_l1"),
    ("mean: blocks past the last are read", "eps_error.cu", "lane < count ? sums[first + lane] : 0.0", "sums[first + lane]"),
    ("mean: blocks are added backwards", "eps_error.cu", "__shfl_sync(EVERY_LANE, sum, i)", "__shfl_sync(EVERY_LANE, sum, count - 1 - i)"),
    ("mean: by whole blocks", "eps_error.cu", "/ (double)params.n_elem", "/ (double)(params.n_blocks * DC_BLOCK)"),
    ("mean: lanes past the last block leave", "eps_error.cu", "if (row >= params.n_rows)", "if (row >= params.n_rows || lane >= params.n_blocks)"),
    ("pieces: the antithetic sign is lost", "context.cu", "group->sigma) * group->eps_sign;", "group->sigma);"),
    ("pieces: the last is as long as the others", "context.cu", "group->n_rows - row < rows_max ? group->n_rows - row : rows_max", "rows_max"),
    ("pieces: all of a group begin at its first row", "context.cu", "= first_row + row;", "= first_row;"),
    ("pieces: written before the earlier copy ran", "context.cu", "cudaEventSynchronize(stage->copied)", "cudaSuccess"),
    ("graph: pieces stay those of the recording", "context.cu", "int64_t n_pieces = pieces_cut(cuda, pieces, groups, n_groups, n_rows, n_elem, i == 1);", "int64_t n_pieces = n_all; if (i < 0) n_pieces = pieces_cut(cuda, pieces, groups, n_groups, n_rows, n_elem, i == 1);"),
    ("graph: targets are refilled as inputs", "context.cu", "n_rows, n_elem, i == 1);", "n_rows, n_elem, false);"),
    ("graph: the last run's pieces stay behind", "context.cu", "memset(pieces + n_pieces, 0, (size_t)(n_all - n_pieces) * sizeof *pieces);", ""),
    ("graph: both share their pieces", "context.cu", "dc_piece *pieces = cuda->recorded[graph][i].host;", "dc_piece *pieces = cuda->recorded[0][i].host;"),
    ("graph: as many pieces as at the recording", "context.cu", "return send(cuda, stage, n_rows) ? n_rows : 0;", "return send(cuda, stage, n_rows) ? n_groups : 0;"),
    ("graph: the recording's stage is that of calls", "context.cu", "cuda->recording > 0 ? &cuda->recorded[cuda->recording - 1][for_target] :", "cuda->recording > 99 ? &cuda->recorded[cuda->recording - 1][for_target] :"),
    ("graph: recording never ends", "context.cu", "    cuda->recording = 0;\n", ""),
    ("graph: a failed recording is a lost device", "context.cu", "    cuda->failure = cudaSuccess;\n    return status;", "    return status;"),
    ("graph: its memory is leaked", "context.cu", "            for (int i = 0; i < 2; i++)\n                stage_clear(&cuda->recorded[graph][i]);", "            (void)graph;"),
    ("failure: the next caller of the runtime finds it", "context.cu", "    (void)cudaGetLastError();\n    return dc_error_set", "    return dc_error_set"),
    ("batch: errors are read at once", "context.cu", "cudaEventSynchronize((cudaEvent_t)results->mark)", "cudaSuccess"),
    ("batch: its end is not marked", "context.cu", "cudaEventRecord((cudaEvent_t)results->mark, cuda->stream)", "cudaSuccess"),
    ("results: freed while the device writes them", "context.cu", "if (results->errors != NULL)\n        (void)cudaStreamSynchronize(cuda->stream);", ""),
    ("upload: pinned memory is not waited for", "context.cu", "attributes.type != cudaMemoryTypeUnregistered", "attributes.type == 99"),
    ("launch: on the default stream", "context.h", "config.stream = cuda->stream;", "config.stream = NULL;"),
    ("device: another device stays current", "context.cu", "&& now != before)", "&& now < before)"),
    ("device: the thread's own is used", "context.cu", "if (before != cuda->device)", "if (before > cuda->device)"),
    ("failure: a failed launch is not remembered", "context.h", "dc_cuda_note(cuda, cudaLaunchKernelEx(&config, kernel, params), what);", "(void)cudaLaunchKernelEx(&config, kernel, params);"),
    ("life: an event is leaked", "context.cu", "(void)cudaEventDestroy(cuda->stages[i].copied);", "continue;"),
    ("modulate: the last rows are forgotten", "dit_operations.cu", "(n_rows + MODULATE_ROWS - 1) / MODULATE_ROWS", "n_rows / MODULATE_ROWS"),
    ("modulate: what is past the end counts for the variance", "dit_operations.cu", "variance += e + i < hidden ? (own[i] - mean) * (own[i] - mean) : 0.0f;", "variance += (own[i] - mean) * (own[i] - mean);"),
    ("modulate: the sum misses half of the lanes", "dit_operations.cu", "for (int width = LANES / 2; width > 0; width /= 2)\n        value", "for (int width = LANES / 4; width > 0; width /= 2)\n        value"),
    ("modulate: every image has the first's row", "dit_operations.cu", "params.row_of[(unsigned)row / params.n_tokens] * params.stride", "params.row_of[0] * params.stride"),
    ("modulate: the scale is not one more", "dit_operations.cu", "(1.0f + scale[i])", "scale[i]"),
    ("modulate: too few numbers are kept", "dit_operations.cu", "hidden <= 40 * LANES ?", "hidden <= 48 * LANES ?"),
    ("embedding: sines first", "dit_operations.cu", "dc_narrow(out + i, (float)cosine);\n    dc_narrow(out + half + i, (float)sine);", "dc_narrow(out + i, (float)sine);\n    dc_narrow(out + half + i, (float)cosine);"),
    ("condition: of the pair's number, not its class", "dit_operations.cu", "params.table[params.class_of_pair[pair] * hidden + e]", "params.table[params.time_of_pair[pair] * hidden + e]"),
    ("patchify: channels after pixels", "dit_operations.cu", "(c * size + h * p + i) * size + w * p + j]", "((h * p + i) * size + w * p + j) * channels + c]"),
    ("patchify: rows of the batch, not of inputs", "dit_operations.cu", "params.from + params.row_of[item / n_elem] * n_elem", "params.from + item / n_elem * n_elem"),
    ("unpatchify: row and column change places", "dit_operations.cu", "((token * p + row % p) * p + column % p)", "((token * p + column % p) * p + row % p)"),
    ("gather: a row's last block is missing", "dit_operations.cu", "(n_elem + 4 * ELEMENT_THREADS - 1) / (4 * ELEMENT_THREADS)", "n_elem / (4 * ELEMENT_THREADS) + (n_elem < 4 * ELEMENT_THREADS)"),
    ("attention: no scale", "attention.cu", "scores[r] * params.scale", "scores[r]"),
    ("attention: no barrier before the scores", "attention.cu", "__syncthreads(); /* the slab is there */", ""),
    ("attention: no barrier behind the scores", "attention.cu", "__syncthreads(); /* it may be written again */", ""),
    ("attention: no barrier before the values", "attention.cu", "__syncthreads(); /* weights and values are there; they are written again behind the next slab's first barrier */", ""),
    ("attention: keys past the last count", "attention.cu", "first_key + lane < params.n_tokens ? scores[r] * params.scale : -INFINITY", "scores[r] * params.scale"),
    ("attention: earlier sums are not shrunk", "attention.cu", "sums[r][c] *= shrink;", "sums[r][c] *= 1.0f;"),
    ("attention: the total is one lane's", "attention.cu", "total[r] += __shfl_xor_sync(EVERY_LANE, total[r], width);", ";"),
    ("attention: q and k change places", "attention.cu", "k = q + params.hidden, *v = k + params.hidden;", "k = q + 2 * params.hidden, *v = q + params.hidden;"),
    ("attention: queries past the last are written", "attention.cu", "if (query < params.n_tokens && column", "if (column"),
    ("attention: the second part of a wide head is the first", "attention.cu", "const int column = part * COLUMNS * LANES", "const int column = 0 * part * COLUMNS * LANES"),
    ("linear: the bias is dropped", "linear.cu", "plan->is_gelu ? DC_LT_EPILOGUE_GELU_BIAS : DC_LT_EPILOGUE_BIAS", "plan->is_gelu ? 32 : 1"),
    ("linear: gelu is dropped", "linear.cu", "plan->is_gelu ? DC_LT_EPILOGUE_GELU_BIAS : DC_LT_EPILOGUE_BIAS", "DC_LT_EPILOGUE_BIAS"),
    ("linear: the weight is not transposed", "linear.cu", "DC_LT_DESC_TRANSA, DC_LT_OP_T", "DC_LT_DESC_TRANSA, DC_LT_OP_N"),
    ("linear: x has the leading dimension of y", "linear.cu", "lt->layout_create(&plan->x, narrow, n_in, PLAN_ROWS, plan->n_in)", "lt->layout_create(&plan->x, narrow, n_in, PLAN_ROWS, plan->n_out)"),
    ("linear: the number of rows stays that of the plan", "linear.cu", "note(cuda, lt->layout_set(plan->y, DC_LT_LAYOUT_COLS, &rows, sizeof rows)) &&\n", "\n"),
    ("linear: a plan for aligned memory is used for any", "linear.cu", "kind.is_aligned = ((uintptr_t)to | (uintptr_t)x) % 16 == 0;", "kind.is_aligned = true;"),
    ("linear: plans of wide and narrow outputs are the same", "linear.cu", "a->is_wide == b->is_wide && a->is_aligned", "a->is_aligned"),
    ("linear: the bias of the other type", "linear.cu", "is_wide ? layer->bias : layer->narrow_bias", "is_wide ? layer->narrow_bias : (const void *)layer->bias"),
    ("linear: a sum may be split", "linear.cu", "const uint32_t no_split = 0;", "const uint32_t no_split = 7;"),
    ("linear: TF32 where float32 is asked", "linear.cu", "plan->precision == DC_PRECISION_TF32 ? DC_LT", "plan->precision != DC_PRECISION_BFLOAT16 ? DC_LT"),
    ("linear: a failed product is not noticed", "linear.cu", "return status == DC_LT_SUCCESS || dc_cuda_note(cuda, failure, name_of(status));", "return true;"),
    ("linear: the gate is the image's number", "linear.cu", "params.other_of[row / params.rows_per_other]", "row / params.rows_per_other"),
    ("linear: the gated product is not added", "linear.cu", "items[i] += gates[i] * products[i];", "items[i] = gates[i] * products[i];"),
    ("linear: pos_embed of the first patch for all", "linear.cu", "row % params.rows_per_other * params.other_stride", "0 * params.other_stride"),
    ("linear: only the first block of a row is gated", "linear.cu", "e < n_out; e += UNIT * LINEAR_THREADS", "e < n_out; e += n_out"),
    ("placing: panels row by row", "linear.cu", "(j / DC_PANEL * params.n_in + k) * DC_PANEL + j % DC_PANEL", "(j / DC_PANEL * DC_PANEL + j % DC_PANEL) * params.n_in + k"),
    ("placing: nobody waits for the panels", "linear.cu", "dc_cuda_note(cuda, cudaStreamSynchronize(cuda->stream), \"placing a layer\");", ""),
    ("numbers: a full ring is written over", "dit_context.cu", "cudaEventSynchronize(sending->copied)", "cudaSuccess"),
    ("numbers: always the first of the ring", "dit_context.cu", "dit->next_send = (dit->next_send + 1) % DC_SENDS;", ";"),
    ("cuBLASLt: a description is leaked", "dit_context.cu", "(void)lt->desc_destroy(plan->desc);", ";"),
    ("cuBLASLt: scratch memory is leaked", "dit_context.cu", "(void)cudaFree(dit->scratch);\n    (void)cudaFree(dit->workspace);", "(void)cudaFree(dit->workspace);"),
    ("rounding: halves are cut off", "element.h", "out->bits = dc_round_float16(value);", "out->bits = dc_round_float16(value * 0.9998f);"),
]  # fmt: skip


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        "make",
        "-s",
        "-C",
        str(HERE),
        f"SOURCE={COPY / 'csrc'}",
        f"BUILD={COPY / 'objects'}",
        "WARNINGS=-w",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True)


def fresh_copy() -> None:
    for path in sorted((ROOT / "csrc" / "cuda").iterdir()):
        target = COPY / "csrc" / "cuda" / path.name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def caught_by(file: str, name: str = "") -> str | None:
    """The test that the copy fails, and how; None when all pass.  The changed file's own test comes first."""
    own = OF_KIND.get(name.partition(":")[0], OWN_TEST.get(file, Path(file).stem))
    stems = sorted((path.stem for path in HERE.glob("test_*.cc")), key=lambda stem: (stem[5:] != own, stem))
    for stem in stems:
        built = make(str(COPY / "objects" / stem))
        if built.returncode != 0:
            raise RuntimeError(built.stderr[-600:])
        try:
            test = COPY / "objects" / stem
            done = subprocess.run([test], capture_output=True, text=True, timeout=PATIENCE, errors="replace")
        except subprocess.TimeoutExpired:
            return f"{stem} hangs"
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("shim: ") or "runtime error" in line]
            return f"{stem}: {said[0] if said else 'wrong numbers' if done.returncode > 0 else 'crash'}"
    return None


def main() -> int:
    chosen = [mutant for mutant in MUTANTS if len(sys.argv) < 2 or sys.argv[1] in mutant[0]]
    fresh_copy()
    if (failed := caught_by("")) is not None:
        print("the sources as they are do not pass:", failed)
        return 1
    survivors = 0
    for name, file, text, becomes in chosen:
        began = time.monotonic()
        fresh_copy()
        target = COPY / "csrc" / "cuda" / file
        source = target.read_text()
        if source.count(text) != 1:
            print(f"STALE     {name}: its text stands {source.count(text)} times in {file}")
            survivors += 1
            continue
        target.write_text(source.replace(text, becomes))
        how = caught_by(file, name)
        survivors += how is None
        print(
            f"{'SURVIVED' if how is None else 'caught'}    {name}  [{how}, {time.monotonic() - began:.0f} s]",
            flush=True,
        )
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
