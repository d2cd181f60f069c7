#!/usr/bin/env python3
"""bench/scaling_model.py and scaling.py: closed forms, what must be conserved, and that the fits describe what was measured.

Prints its results as GoogleTest does.
"""
import contextlib, io, pathlib, re, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import scaling, scaling_check
from scaling_model import Exchange, Group, errors, least_squares, pairs_of, plan_packs, roll_out, shared, step, update


class Plain:
    """A rank whose costs are easy to add up."""
    batch, kv_tokens, page, run, prefill_tokens, pack_tokens, slots, context, backward = 64, 10 ** 9, 16, 1, 256, 4096, None, 1e-9, 0.5
    x = Exchange()

    def __init__(self, **changes):
        self.__dict__.update(changes)

    def decode(self, n): return 1e-3 + 1e-5 * n, 2e-4
    def prefill(self, tokens, pairs): return 1e-4 + 1e-6 * tokens + 1e-9 * pairs, 3e-4
    def pack(self, tokens, pairs, heads): return 1e-5 * tokens + 1e-9 * pairs + 1e-6 * heads, 1e-6 * tokens
    def exchange(self, ranks): return self.x
    def host(self, responses, tokens, ranks): return 0.25


def near(a, b):
    assert abs(a - b) <= 1e-9 * max(abs(a), abs(b)), f"{a} is not {b}"


def uneven(count=12, n=4):
    return scaling.log_normal_groups(count, n, 300, 0.8, 1000, 0.5, 40, seed=7)


def one_rank_and_equal_lengths_have_a_closed_form():
    c, P, R, n, groups = Plain(), 40, 100, 8, 5
    engines, ends = roll_out([Group(P, [R] * n)] * groups, 1, c)
    B = groups * n
    decode = sum(1e-3 + 1e-5 * B + 2e-4 + 1e-9 * B * (P + k) for k in range(1, R))
    near(ends[0], decode + sum(c.prefill(200, groups * P * (P + 1) / 2)))
    trained = [Group(P, [R] * n)] * groups
    s = step([trained], trained, 1, 1, Plain(x=Exchange(3, 0.0, 0.0, 0.5)))
    rows, pairs = groups * (P + n * (R - 1)), groups * pairs_of(P, [R] * n)
    near(sum(s.values()), ends[0] + 0.25 + 0.5 + 1e-5 * rows + 1e-9 * pairs + 1e-6 * groups * n * R + 1e-6 * rows)


def a_batch_of_half_the_size_takes_two_waves():
    whole, half = (roll_out([Group(40, [50] * 32)] * 2, 1, Plain(batch=b))[1][0] for b in (64, 32))
    near(half, 2 * roll_out([Group(40, [50] * 32)], 1, Plain(batch=32))[1][0])
    assert whole < half


def every_token_is_drawn_once_whatever_the_memory_and_the_ranks():
    groups = uneven()
    tokens = sum(sum(g.lengths) for g in groups)
    for ranks, memory, run in ((1, 10 ** 9, 1), (1, 2500, 1), (3, 1800, 4), (5, 10 ** 9, 16), (20, 1500, 1)):
        engines, ends = roll_out(groups, ranks, Plain(kv_tokens=memory, run=run))
        assert sum(e.finished for e in engines) == 48 and sum(e.drawn for e in engines) == tokens, (ranks, memory)
        for e in engines:
            assert not e.open() and abs(e.used) < 1e-6 and e.context == 0, (ranks, memory, e.used, e.context)
        assert memory > 10 ** 6 or ranks > 1 or engines[0].preempted > 0, "too little memory preempts"
    less, more = (roll_out(groups, 1, Plain(kv_tokens=m))[1][0] for m in (2500, 10 ** 9))
    assert more < less


def prompts_that_do_not_fit_are_dealt_while_others_draw():
    groups = [Group(40, [1000] * 4)] + [Group(40, [50] * 4)] * 30
    slow = Plain(batch=4, decode=lambda n: (0.05, 0.0))
    engines, ends = roll_out(groups, 2, slow)
    assert [len(e.groups) for e in engines][0] < 8, "the rank with the long responses gets few others"
    assert sum(len(e.groups) for e in engines) == 31
    assert max(ends) < 1.2 * sum(ends) / 2, ends


def processors_are_shared_evenly():
    assert shared([1, 1], 2) == [1, 1]
    assert shared([1, 1, 1, 1], 2) == [2, 2, 2, 2]
    assert shared([3, 1, 1], 2) == [3.5, 1.5, 1.5], shared([3, 1, 1], 2)
    near(max(shared([1, 2, 3, 4], 1)), 10)


def terms_add_up_to_the_step():
    groups = uneven()
    for ranks, slots in ((1, None), (3, None), (4, 2)):
        c = Plain(slots=slots)
        s = step([groups[:6], groups[6:]], groups, 2, ranks, c)
        rollout = sum(max(roll_out(g, ranks, c)[1]) for g in (groups[:6], groups[6:]))
        passes = 0
        for half in (groups[:6], groups[6:]):
            passes += max(shared([sum(sum(c.pack(*p)) for p in packs) for packs in plan_packs(half, ranks, c)], slots or ranks))
        near(sum(s.values()), rollout + passes + 0.25)
        assert min(s.values()) > -1e-9 or s["thin batches"] == min(s.values()), s


def packs_hold_every_response_once_and_are_balanced():
    groups, c = uneven(32), Plain()
    heads = sum(sum(g.lengths) for g in groups)
    for ranks in (1, 2, 7, 40, 200):
        packs = plan_packs(groups, ranks, c)
        assert len(packs) == ranks and sum(p[2] for mine in packs for p in mine) == heads
        assert all(p[0] <= c.pack_tokens for mine in packs for p in mine)
        loads = [sum(p[0] for p in mine) for mine in packs]
        longest = max(g.prompt + max(g.lengths) for g in groups)
        assert max(loads) <= sum(loads) / ranks + 2 * longest + 40, (ranks, max(loads), sum(loads) / ranks)


def gradients_hide_beside_the_last_backward():
    groups = [Group(40, [500] * 4)]
    alone = update(groups, 1, Plain())
    passes = sum(alone.values())
    hidden = update(groups, 1, Plain(x=Exchange(10, 1e-6, 0, 0)))
    near(hidden["gradients, weights"], 1e-6)  # of the last bucket, which is ready when the backward ends
    slow = 10 * passes
    exposed = update(groups, 1, Plain(x=Exchange(10, slow, 0, 0)))
    near(exposed["gradients, weights"], 10 * slow - 0.5 * passes * 0.9)  # sent from the first bucket's end on


def faster_links_never_slow_a_step():
    groups = scaling.groups_of(16, 1)
    for name, tensor, data in (("0.5B", 1, 64), ("7B", 2, 16), ("32B", 8, 4), ("7B", 8, 1)):
        seconds = []
        for factor in (1, 2, 4):
            g = scaling.Grid(scaling.MODELS[name], tensor, data, nvlink=factor * scaling.NVLINK, network=factor * scaling.NETWORK)
            seconds.append(sum(step([groups], groups, 2, data, g).values()))
        assert seconds[0] >= seconds[1] >= seconds[2], (name, tensor, data, seconds)
        assert seconds[0] > seconds[2], "links cost something"


def grids_need_the_memory_that_they_need():
    s = scaling.MODELS["7B"]
    assert abs(s.parameters / 7.616e9 - 1) < 1e-3 and s.kv_bytes == 57344
    assert scaling.MODELS["32B"].kv_bytes == 262144 and abs(scaling.MODELS["72B"].parameters / 72.7e9 - 1) < 1e-3
    assert not scaling.grids("32B", 2) and not scaling.grids("72B", 8), "their weights, gradients and moments do not fit"
    assert scaling.Grid(s, 1, 8).fits and not scaling.Grid(s, 1, 1).fits
    kv = [scaling.Grid(s, 1, d).kv_tokens for d in (8, 16, 64)]
    assert kv == sorted(kv), "moments that are divided leave room for keys and values"


def fits_describe_what_was_measured():
    for rows, limit, c in ((scaling.decode_rows(), 0.1, (scaling.LAYER, scaling.PER_WEIGHT_BYTE, scaling.PER_KV_BYTE)),
                           (scaling.training_rows(), 0.03, (scaling.PER_FLOP_NARROW, scaling.PER_FLOP, scaling.PER_PAIR_FLOP))):
        names, features, seconds = rows
        for name, e in zip(names, errors(features, seconds, c)):
            assert abs(e) < limit, f"{name}: {100 * e:.1f} %"
    rollout, rest = scaling.whole_step()
    assert abs(rollout / 9.2 - 1) < 0.15 and abs(rest / 9.7 - 1) < 0.15, (rollout, rest)  # a step that no fit has seen
    near(least_squares([(1, 0), (1, 1), (1, 3)], [2, 5, 11])[1], 3)


def the_page_is_what_the_program_prints():
    page = (ROOT / "docs/scaling.md").read_text()
    points = scaling.curve("32B", "64 x 16", [64], [1, 2, 3])
    row = scaling.table("32B", "64 x 16", points).splitlines()[-1].split("|")
    cells = "|".join(row[1:5])
    assert cells in page, f"docs/scaling.md has another row for 32B on 64 GPUs than {cells}: python3 bench/scaling.py --into docs/scaling.md"


def a_page_without_its_section_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder) / "page.md"
        page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
        scaling.into(page, "x", "new\n")
        assert page.read_text() == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
        try:
            scaling.into(page, "y", "new")
        except SystemExit as e:
            assert "<!-- y -->" in str(e)
        else:
            raise AssertionError("no error")


FAKE = """#!/usr/bin/env python3
import json, os, sys
a = dict(x.split("=", 1) for x in sys.argv[3::2])
n, ranks, threads = int(a.get("rollout.n", 16)), int(a.get("parallel.dp", 1)), int(a.get("model.threads", 2))
groups, tokens = int(a.get("data.train_batch_size", 32)), int(a.get("data.max_response_length", 20)) if "rollout.n" in a else 20
together = min(groups * n // ranks, int(a.get("rollout.max_num_seqs", 1024)))
slow = max(1, ranks / 2) * (1.5 if ranks > 1 or "rollout.n" in a and threads == 1 else 1)
own = groups * n / ranks
rollout = 0.01 + 1e-6 * 26 * groups / ranks + (own / together * 1e-3 + 2e-6 * own) * (tokens - 1) + 1e-9 * own * sum(26 + k for k in range(1, tokens))
rows = groups * (26 + n * (tokens - 1))
pairs = groups * (26 * 27 / 2 + n * ((tokens - 1) * 26 + (tokens - 1) * tokens / 2))
update = 2 * 0.005 / ranks + (2e-5 * rows + 1e-9 * pairs) / ranks * slow
os.makedirs(a["trainer.run_dir"] + "/rollouts")
with open(a["trainer.run_dir"] + "/metrics.jsonl", "w") as f:
    for step in range(1 + int(a["trainer.total_steps"])):
        f.write(json.dumps({"step": step, "seconds": rollout * slow + update, "rollout/seconds": rollout * slow, "update/seconds": update, "update/rows": rows,
                            "update/count": 2, "groups/generated": groups, "groups/trained": groups, "groups/generation_batches": 1}) + "\\n")
        with open(a["trainer.run_dir"] + f"/rollouts/step_{step}.jsonl", "w") as g:
            for i in range(groups * 16):
                g.write(json.dumps({"id": str(i // 16), "drawn_at": step, "kept": True, "advantage": 0.5, "tokens": tokens, "prompt_ids": [0] * 26}) + "\\n")
"""


def op_times_of_known_size_predict_ranks():
    """Ranks take what the op times say, half as long again with one thread each; the check must find both."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        (out / "crowd").mkdir()
        (out / "crowd/config.json").write_text("{}")
        (out / "dapo_train").write_text(FAKE)
        (out / "dapo_train").chmod(0o755)
        (out / "page.md").write_text("<!-- check -->\n<!-- /check -->\n")
        scaling_check.CORES = 2
        argv, sys.argv = sys.argv, ["scaling_check.py", "--out", folder, "--bin", folder, "--rounds", "1", "--steps", "2", "--into", f"{folder}/page.md"]
        with contextlib.redirect_stdout(io.StringIO()):
            scaling_check.main()
        sys.argv = argv
        page = (out / "page.md").read_text()
        found = [float(m) for m in re.findall(r"\| ([+-]\d+) % \|", page)]
        assert len(found) == 3 and max(map(abs, found)) <= 3, page
        assert "Load average before" in page


tests = [one_rank_and_equal_lengths_have_a_closed_form, a_batch_of_half_the_size_takes_two_waves,
         every_token_is_drawn_once_whatever_the_memory_and_the_ranks, prompts_that_do_not_fit_are_dealt_while_others_draw,
         processors_are_shared_evenly, terms_add_up_to_the_step, packs_hold_every_response_once_and_are_balanced,
         gradients_hide_beside_the_last_backward, faster_links_never_slow_a_step, grids_need_the_memory_that_they_need,
         fits_describe_what_was_measured, the_page_is_what_the_program_prints, a_page_without_its_section_is_refused,
         op_times_of_known_size_predict_ranks]
failed = []
for test in tests:
    try:
        test()
    except Exception as e:
        failed.append(test.__name__)
        print(f"{type(e).__name__}: {e}\n[  FAILED  ] {test.__name__} (0 ms)")
print(f"[  PASSED  ] {len(tests) - len(failed)} tests.")
sys.exit(1 if failed else 0)
