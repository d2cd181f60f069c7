"""A discrete-event model of a DAPO step on ranks: continuous batching, the deal of prompts, packs, gradients beside the backward.

Devices enter as costs: an object with what bench/scaling.py (GPUs) and bench/scaling_check.py (CPU ranks) define,

    batch, kv_tokens, page, run, prefill_tokens, pack_tokens, slots      limits; run: decode steps between synchronizations;
                                                                         slots: ranks that compute at full speed at once
    decode(sequences), context                a decode step: (own seconds, those of collectives); seconds more a token of context
    prefill(tokens, pairs), pack(tokens, pairs, heads)                   (own seconds, those of collectives)
    backward                                                             its share of a pack's seconds
    exchange(ranks)                                                      an Exchange
    host(responses, tokens, ranks)                                       seconds of a step in which no device computes

Everything here is a pure function of its arguments: times in seconds, lengths in tokens.
"""
import collections, dataclasses, heapq, math, random


@dataclasses.dataclass
class Exchange:
    """Between the ranks of data parallelism, after a mini-batch: gradients by bucket (a layer), AdamW, weights by bucket."""
    buckets: int = 1
    reduce: float = 0.0   # seconds of a bucket's gradients
    gather: float = 0.0   # seconds of a bucket's weights
    adamw: float = 0.0    # with the norm's exchange


@dataclasses.dataclass
class Group:
    prompt: int
    lengths: list


def log_normal_groups(count, samples, mean, sigma, cap, within, prompt, seed):
    """Lengths with this mean before the cap; `within`: share of the variance (of logarithms) inside a group, the rest is between groups."""
    rng, mu, groups = random.Random(seed), math.log(mean) - sigma * sigma / 2, []
    for _ in range(count):
        of_group = rng.gauss(0, sigma * math.sqrt(1 - within))
        draws = (math.exp(mu + of_group + rng.gauss(0, sigma * math.sqrt(within))) for _ in range(samples))
        groups.append(Group(prompt, [max(1, min(cap, round(x))) for x in draws]))
    return groups


def least_squares(rows, seconds):
    """Coefficients that make sum(c * row) nearest to `seconds`, in relative error."""
    a = [[v / t for v in row] for row, t in zip(rows, seconds)]
    n = len(a[0])
    m = [[sum(r[i] * r[j] for r in a) for j in range(n)] + [sum(r[i] for r in a)] for i in range(n)]
    for i in range(n):
        p = max(range(i, n), key=lambda k: abs(m[k][i]))
        m[i], m[p] = m[p], m[i]
        for k in range(n):
            if k != i:
                f = m[k][i] / m[i][i]
                m[k] = [x - f * y for x, y in zip(m[k], m[i])]
    return [m[i][n] / m[i][i] for i in range(n)]


def errors(rows, seconds, coefficients):
    return [sum(c * v for c, v in zip(coefficients, row)) / t - 1 for row, t in zip(rows, seconds)]


def shared(work, slots):
    """When each of several pieces of work ends that share `slots` processors evenly, with at most one each."""
    order, ends, now, done, left = sorted(range(len(work)), key=lambda i: work[i]), [0.0] * len(work), 0.0, 0.0, len(work)
    for i in order:
        now += (work[i] - done) * max(1.0, left / slots)
        done, ends[i], left = work[i], now, left - 1
    return ends


class Engine:
    """The rollout of one rank, as host/rollout/scheduler.cpp batches it. Between two events all sequences grow by a token a step."""

    def __init__(self, costs):
        self.costs, self.clock, self.sums, self.prefilled, self.thin = costs, 0.0, 0.0, 0.0, 0.0
        self.drawn = self.finished = self.preempted = 0
        self.groups, self.sequences = [], []                  # sequence: [group, length, tokens drawn]
        self.first_draws = set()                              # groups whose first tokens are drawn
        self.waiting, self.ends, self.youngest = [], [], []   # heaps: index; (step of the end, index); -index
        self.running = {}                                     # index -> step at which it had no token
        self.resident = collections.Counter()                 # running sequences by group
        self.step = self.context = self.used = 0
        self.full_cost = costs.decode(costs.batch)[0] / costs.batch

    def add(self, group):
        self.groups.append(group)
        for length in group.lengths:
            heapq.heappush(self.waiting, len(self.sequences))
            self.sequences.append([len(self.groups) - 1, length, 0])

    def open(self):
        return len(self.waiting) + len(self.running)

    def _tokens(self, i):
        return self.step - self.running[i]

    def _leave(self, i):
        g, _, _ = self.sequences[i]
        self.sequences[i][2] = self._tokens(i)
        self.context -= self.groups[g].prompt + self._tokens(i)
        self.used -= self._tokens(i) + self.costs.page / 2
        del self.running[i]
        self.resident[g] -= 1
        if not self.resident[g]:
            self.used -= self.groups[g].prompt + self.costs.page / 2

    def _admit(self):
        """Sequences until places or pages run out; then their prompts, and what preempted ones had, are computed."""
        c, calls = self.costs, []
        while self.waiting and len(self.running) < c.batch:
            i = self.waiting[0]
            g, length, tokens = self.sequences[i]
            group, resident = self.groups[g], self.resident[g] > 0
            need = tokens + c.page / 2 + (0 if resident else group.prompt + c.page / 2)
            if self.running:
                places = c.batch - len(self.running)
                if (not resident or tokens > 1) and places < min(len(self.waiting), max(len(group.lengths), c.batch // 8)):
                    break
                if self.used + need + c.page * (len(self.running) + 1) > c.kv_tokens:
                    break
            heapq.heappop(self.waiting)
            if not resident:
                calls.append((group.prompt, 0))
            if g not in self.first_draws:  # one prefill draws the first token of every sample
                self.first_draws.add(g)
                for k in range(i, i + len(group.lengths)):
                    self.sequences[k][2] = 1
                tokens = 1
            if tokens > 1:
                calls.append((tokens - 1, group.prompt))
            self.resident[g] += 1
            self.running[i] = self.step - tokens
            self.used += tokens + c.page / 2 + (0 if resident else group.prompt + c.page / 2)
            self.context += group.prompt + tokens
            heapq.heappush(self.ends, (self.step - tokens + length, i))
            heapq.heappush(self.youngest, -i)
        tokens = pairs = 0
        for n, before in calls:
            while n:
                part = min(n, c.prefill_tokens - tokens)
                pairs += part * before + part * (part + 1) / 2
                tokens, before, n = tokens + part, before + part, n - part
                if tokens == c.prefill_tokens:
                    self._prefill(tokens, pairs)
                    tokens = pairs = 0
        if tokens:
            self._prefill(tokens, pairs)

    def _prefill(self, tokens, pairs):
        own, sums = self.costs.prefill(tokens, pairs)
        self.clock += own + sums
        self.prefilled += own
        self.sums += sums

    def _retire(self):
        while self.ends and self.ends[0][0] <= self.step:
            end, i = heapq.heappop(self.ends)
            if i in self.running and self.running[i] + self.sequences[i][1] == end:
                self._leave(i)
                self.finished += 1
                self.drawn += self.sequences[i][1]

    def _preempt(self):
        """The youngest, until every other one has a page to grow into."""
        while len(self.running) > 1 and self.used + len(self.running) * self.costs.run > self.costs.kv_tokens:
            i = -heapq.heappop(self.youngest)
            if i in self.running:
                self._leave(i)
                self.preempted += 1
                heapq.heappush(self.waiting, i)

    def advance(self, until=math.inf):
        """Runs up to `until`, to the end of what is there if that is earlier."""
        c = self.costs
        while self.open() and self.clock < until:
            self._retire()
            self._admit()
            self._retire()  # responses of a single token
            if not self.running:
                continue
            self._preempt()
            n = len(self.running)
            while self.ends[0][1] not in self.running:
                heapq.heappop(self.ends)
            own, sums = c.decode(n)
            steps = c.run * math.ceil((self.ends[0][0] - self.step) / c.run)
            steps = min(steps, c.run * max(1, int((c.kv_tokens - self.used) / n) // c.run))
            if until < math.inf:
                steps = min(steps, c.run * max(1, math.ceil((until - self.clock) / (own + sums + c.context * self.context) / c.run)))
            self.clock += steps * (own + sums) + c.context * (steps * self.context + n * steps * (steps - 1) / 2)
            self.sums += steps * sums
            self.thin += steps * (own - n * self.full_cost)
            self.step, self.context, self.used = self.step + steps, self.context + n * steps, self.used + n * steps


SECONDS_BETWEEN_MEETINGS = 1


def roll_out(groups, ranks, costs):
    """One generation batch (host/train/draw.cpp): dealt evenly first, then to the rank with the least left. The engines, and when each ended."""
    engines = [Engine(costs) for _ in range(ranks)]
    left = collections.deque(groups)

    def deal():
        loads = [(e.open(), r) for r, e in enumerate(engines)]
        heapq.heapify(loads)
        while left and (ranks == 1 or loads[0][0] < costs.batch + len(left[0].lengths)):
            load, r = heapq.heappop(loads)
            heapq.heappush(loads, (load + len(left[0].lengths), r))
            engines[r].add(left.popleft())

    deal()
    slots = costs.slots or ranks
    speed, now = min(1.0, slots / ranks), 0.0
    while left:
        now += SECONDS_BETWEEN_MEETINGS * speed
        for e in engines:
            e.advance(now)
        deal()
    for e in engines:
        e.advance()
    return engines, shared([e.clock for e in engines], slots)


def pairs_of(prompt, lengths):
    return prompt * (prompt + 1) / 2 + sum((n - 1) * prompt + n * (n - 1) / 2 for n in lengths)


def plan_packs(groups, ranks, costs):
    """For each rank its packs as (tokens, pairs, heads); host/train/packing.cpp: groups are cut at an even share, longest first dealt to the
    least loaded, then packed in order, evenly."""
    rows = lambda prompt, lengths: prompt + sum(lengths) - len(lengths)
    total = sum(rows(g.prompt, g.lengths) for g in groups)
    pieces = []
    for g in groups:
        limit = min(costs.pack_tokens, math.ceil(total / ranks) if ranks > 1 else costs.pack_tokens)
        count = max(1, math.ceil(rows(g.prompt, g.lengths) / limit))
        even, piece = rows(0, g.lengths) / count, []
        for n in g.lengths:
            if piece and (rows(g.prompt, piece + [n]) > costs.pack_tokens or (count > 1 and rows(0, piece) + n / 2 > even)):
                pieces.append((g.prompt, piece))
                piece = []
            piece.append(n)
        pieces.append((g.prompt, piece))
    work = [(rows(p, l), pairs_of(p, l), sum(l)) for p, l in pieces]
    seconds = [sum(costs.pack(*w)) for w in work]
    loads, dealt = [(0.0, r) for r in range(ranks)], [[] for _ in range(ranks)]
    for i in sorted(range(len(work)), key=lambda i: -seconds[i]):
        load, r = heapq.heappop(loads)
        heapq.heappush(loads, (load + seconds[i], r))
        dealt[r].append(i)
    return [_fill([work[i] for i in sorted(mine)], costs.pack_tokens) for mine in dealt]


def _fill(work, most):
    wanted = sum(w[0] for w in work) / max(1, math.ceil(sum(w[0] for w in work) / most))
    packs = []
    for w in work:
        if packs and packs[-1][0] + w[0] <= most and packs[-1][0] + w[0] / 2 <= wanted:
            packs[-1] = tuple(a + b for a, b in zip(packs[-1], w))
        else:
            packs.append(w)
    return packs


def update(groups, ranks, costs, next_forward=None):
    """One mini-batch: seconds by term. Buckets of gradients travel beside the last backward, those of weights beside the next forward."""
    x, slots = costs.exchange(ranks), costs.slots or ranks
    seconds = [[costs.pack(*p) for p in packs] for packs in plan_packs(groups, ranks, costs)]
    own, sums = ([sum(p[k] for p in packs) for packs in seconds] for k in (0, 1))
    ends = shared([a + b for a, b in zip(own, sums)], slots)
    last = max(ends)
    # Only ranks that no other one outlasts for every bucket decide when a bucket is ready.
    late = []
    for end, packs in sorted(((e, p) for e, p in zip(ends, seconds) if p), key=lambda t: -t[0]):
        begin = end - costs.backward * sum(packs[-1]) * max(1.0, ranks / slots)
        if not late or begin > late[-1][0]:
            late.append((begin, end))
    sent = 0.0
    for i in range(x.buckets):
        sent = max([sent] + [b + (e - b) * (i + 1) / x.buckets for b, e in late]) + x.reduce
    # The next pass over the layers starts as soon as its first bucket is there.
    layer = (next_forward if next_forward is not None else (1 - costs.backward) * max(sum(p[0]) if p else 0.0 for p in seconds)) / x.buckets
    ready = arrived = 0.0
    for _ in range(x.buckets):
        arrived += x.gather
        ready = max(ready, arrived) + layer
    mean = lambda v: sum(v) / ranks
    spread = max(1.0, ranks / slots)  # ranks that share processors: their own seconds pass more slowly
    return collections.Counter({"training": mean(own) * spread, "TP sums": mean(sums) * spread, "waiting in update": last - mean(own) * spread - mean(sums) * spread,
                                "gradients, weights": max(0.0, sent - last) + ready - layer * x.buckets, "AdamW": x.adamw})


TERMS = ["full batches", "thin batches", "waiting in rollout", "prefill", "training", "waiting in update", "TP sums", "gradients, weights", "AdamW", "host"]


def step(batches, trained, updates, ranks, costs):
    """A step's seconds by term: generation batches one after another, then mini-batches of the trained groups. Terms add up to the step's
    seconds: each is the mean over ranks."""
    out = collections.Counter({t: 0.0 for t in TERMS})
    slots = costs.slots or ranks
    spread = max(1.0, ranks / slots)
    for groups in batches:
        engines, ends = roll_out(groups, ranks, costs)
        mean = lambda f: sum(f(e) for e in engines) / ranks * spread
        out["prefill"] += mean(lambda e: e.prefilled)
        out["TP sums"] += mean(lambda e: e.sums)
        out["thin batches"] += mean(lambda e: e.thin)
        out["full batches"] += mean(lambda e: e.clock - e.sums - e.prefilled - e.thin)
        out["waiting in rollout"] += max(ends) - mean(lambda e: e.clock)
    size = math.ceil(len(trained) / updates)
    for i in range(0, len(trained), size):
        out.update(update(trained[i:i + size], ranks, costs))
    lengths = [n for groups in batches for g in groups for n in g.lengths]
    out["host"] += costs.host(len(lengths), sum(lengths), ranks)
    return out
