#!/usr/bin/env python3
"""Takes the small part of the recorded vectors of Hopper's instructions that the tests of the simulator need.

tests/goldens/hopper/take.py VECTORS.tar.xz: writes CASE.bin.gz beside this file, in the same format: "VEC1\n", then records: a line
"name type d0 d1 ...", the elements as byte planes (byte 0 of all, then byte 1 of all, ...), a newline.
"""
import gzip, pathlib, re, sys, tarfile

SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i16": 2, "i32": 4, "f32": 4, "txt": 1}
# Case -> expression of the records' names; the num_* keep 512 of their 4,096 dots.
CASES = {
    "wg_k_none": r"n(8|24)", "wg_k_32": r"n16", "wg_k_64": r"n8", "wg_k_128": r"n64", "wg_koff_128": r"ab_plus_96|b_plus_32",
    "wg_koff_64": r"ab_plus_32", "wg_mn_a_none": r"n64", "wg_mn_a_64": r"n64", "wg_mn_b_32": r"n64", "wg_mn_ab_128": r"n64",
    "wg_scale": r"d[01](_neg.*)?", "wg_chain": r"waits[12]_d1", "wg_two_groups": r"d", "wg_reg": r"n8|n64_(chain|negA)",
    "wg_reg_mn": r"n64", "wg_probe_a": r"a", "wg_probe_a_odd": r"a", "wg_probe_a_base": r"a", "wg_probe_b": r"b8",
    "wg_probe_a_mn": r"a", "wg_probe_a_mn_odd": r"a", "wg_probe_b_mn_small": r"b(8|24)",
    "num_normal": r"", "num_wide": r"", "num_acc": r"", "num_special": r"", "num_struct": r"",
    "tma_none": r"box64x8", "tma_128": r"box64x8", "tma_64": r"box32x8", "tma_32": r"box16x8", "tma_dst": r".*", "tma_narrow": r".*",
    "tma_edge_128": r".*", "tma_edge_none": r".*", "tma_f32": r".*", "tma_nan_fill": r".*", "tma_3d": r".*", "tma_3d_128": r".*",
    "tma_store": r"s(0|128)_.*", "tma_add_f32": r"one|three", "tma_add_bf16": r".*", "tma_refused": r".*", "bulk_1d": r"(16|2048)_.*",
    "bulk_add_f32": r".*", "multicast_2": r".*", "dsmem_2": r".*", "mbar_basic": r".*(?<!raw)", "mbar_tx": r".*(?<!raw)",
    "mbar_tx_limit": r".*(?<!raw)", "matrix_moves": r"st.*", "pipeline": r"c",
    "tma_prefetch": r".*", "wg_mn_a_128": r".*", "wg_mn_a_32": r".*", "wg_mn_ab_none": r".*", "wg_mn_b_128": r".*", "wg_mn_b_64": r".*",
    "wg_mn_b_none": r".*", "wg_probe_b_base": r".*", "wg_probe_b_mn": r".*", "wg_probe_b_mn_odd": r".*", "wg_probe_b_odd": r".*",
}
DOTS = [i * 7 % 4096 for i in range(512)]  # 7: every kind of the inputs, which repeat every 8 or come in runs


def records(data):
    at = 5
    while at < len(data):
        end = data.index(b"\n", at)
        words = data[at:end].decode().split(" ")
        t = max(i for i, w in enumerate(words) if w in SIZES)
        dims = [int(w) for w in words[t + 1:]]
        count = 1
        for d in dims:
            count *= d
        size = count * SIZES[words[t]]
        yield " ".join(words[:t]), words[t], dims, data[end + 1:end + 1 + size]
        at = end + 1 + size + 1


def rows(kind, dims, planes, keep):
    width = 1
    for d in dims[1:]:
        width *= d
    count = dims[0] * width
    return b"".join(planes[b * count + i * width:b * count + (i + 1) * width] for b in range(SIZES[kind]) for i in keep)


folder = pathlib.Path(__file__).parent
with tarfile.open(sys.argv[1]) as archive:
    files = {pathlib.PurePath(m.name).stem: m for m in archive if m.isfile()}
    for case, names in CASES.items():
        out = b"VEC1\n"
        for name, kind, dims, planes in records(archive.extractfile(files[case]).read()):
            if case.startswith("num_"):
                if kind == "txt" or dims[0] != 4096:
                    continue
                planes, dims = rows(kind, dims, planes, DOTS), [512] + dims[1:]
            elif name in ("gpu", "checks") or not re.fullmatch(f"({names})" + r"(\.txt|\.desc|\.slot)?", name):
                continue
            out += " ".join([name, kind] + [str(d) for d in dims]).encode() + b"\n" + planes + b"\n"
        (folder / f"{case}.bin.gz").write_bytes(gzip.compress(out, 9, mtime=0))
