"""A small trained model and its data in a folder, for tests that run the programs."""
import subprocess

SFT = """[model]
path = "model"
threads = 1
[data]
prompt_template = "raw"
max_prompt_length = 48
max_response_length = 48
[sft]
files = "data/skill.jsonl"
out = "tuned"
batch_size = 4
steps = 2
init_std = 0.1
"""


def make_tuned(programs, folder):
    """folder/data, and folder/tuned: the demo's model after two updates, always the same."""
    subprocess.run([programs / "dapo", "chain", "."], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "sft.cfg").write_text(SFT)
    subprocess.run([programs / "dapo", "sft", "sft.cfg"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
