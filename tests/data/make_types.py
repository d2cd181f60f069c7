#!/usr/bin/env python3
"""Makes types.parquet: a column of every type that Parquet files bring besides plain text and numbers.

Usage: make_types.py types.parquet   (needs pyarrow >= 16 and numpy; made with pyarrow 26.0.1)
"""
import datetime
import decimal
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

D = decimal.Decimal
moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
columns = {
    "prompt": pa.array(["p", "q"]),
    "dec": pa.array([D("2.50"), D("-3.00")], pa.decimal128(10, 2)),
    "dec256": pa.array([D("123456789012345678901234567890.10"), D("1000.00")], pa.decimal256(50, 2)),
    "pair": pa.array([["1", "one"], ["2", "two"]], pa.list_(pa.string(), 2)),
    "half": pa.array([np.float16(0.1), np.float16(42)], pa.float16()),
    "view": pa.array(["a", "b"], pa.string_view()),
    "large": pa.array(["a", "b"], pa.large_string()),
    "map": pa.array([[("k", 1)], [("k", 2), ("y", 3)]], pa.map_(pa.string(), pa.int32())),
    "map_int": pa.array([[(1, "k")], [(2, "l")]], pa.map_(pa.int32(), pa.string())),
    "date": pa.array([moment.date()] * 2),
    "stamp": pa.array([moment, moment.replace(microsecond=500000)], pa.timestamp("us")),
    "span": pa.array([datetime.timedelta(seconds=5)] * 2, pa.duration("us")),
    "bytes": pa.array([b"text", b"\xff\xfe"], pa.binary()),
    "fixed": pa.array([b"abcd", b"efgh"], pa.binary(4)),
    "dict": pa.array(["u", "v"]).dictionary_encode(),
    "nested": pa.array(
        [{"l": [{"a": D("1.5")}]}, {"l": None}],
        pa.struct([("l", pa.list_(pa.struct([("a", pa.decimal128(5, 1))])))]),
    ),
    "wide": pa.array([["a"], ["b", "c"]], pa.large_list(pa.string())),
    "null": pa.nulls(2),
    "double": pa.array([42.0, 1e16]),
    "nan": pa.array([1.0, float("nan")]),
}
pq.write_table(pa.table(columns), sys.argv[1], compression="none", use_dictionary=False, write_statistics=False)
