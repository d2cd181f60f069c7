"""gpu-check's report: Markdown from the JSON of a run."""
import json, pathlib, re


def summary(s):
    f = s.get("figures", {})
    parts = [s["note"]] if "note" in s else []
    if "tests" in f:
        parts.append(f"{f['passed']} of {f['tests']} tests passed, {f['skipped']} skipped")
    if "device" in f:
        parts.append(f["device"])
    return "; ".join(parts + s["failed"][:3] + ([f"and {len(s['failed']) - 3} more"] if len(s["failed"]) > 3 else []))


def gpu_name(result, unknown):
    return next((s["figures"].get("gpu", unknown) for s in result["stages"] if s["name"] == "machine" and "figures" in s), unknown)


def report(result):
    """Markdown of a run."""
    lines = [f"# {gpu_name(result, '?')}, {result['date']}", "", f"`{result['command']}`" + (" (the simulator: no figure of speed means "
             "anything)" if result["device"] == "sim" else ""), "", "| stage | | seconds | |", "|---|---|---|---|"]
    for s in result["stages"]:
        lines.append(f"| {s['name']} | {s['status']} | {s['seconds']} | {summary(s).replace('|', '/')} |")
    for s in result["stages"]:
        figures = {k: v for k, v in s.get("figures", {}).items() if k not in ("lines", "json", "benchmarks")}
        output = s.get("figures", {}).get("lines")
        if not figures and not output:
            continue
        lines += ["", f"## {s['name']}: {s['what']}", ""]
        lines += [f"- {k}: {json.dumps(v) if not isinstance(v, str) else v}" for k, v in figures.items() if v not in ([], {})]
        if output:
            table = any(x.startswith("|") for x in output)
            lines += output if table else ["```", *output, "```"]
    return "\n".join(lines) + "\n"


def results_file(folder, result):
    name = re.sub(r"[^a-z0-9]+", "-", gpu_name(result, "gpu").lower().removeprefix("nvidia ")).strip("-")
    return pathlib.Path(folder) / f"{name}-{result['date'][:10]}.md"
