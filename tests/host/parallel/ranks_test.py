#!/usr/bin/env python3
"""Ranks as processes: their start, every operation between them, and their faults (tests/host/parallel/ranks.cpp).

Prints its results as GoogleTest does. Skips, saying so, where there is no MPI.
"""
import os, pathlib, re, signal, sys, time

sys.dont_write_bytecode = True
from rank_processes import BUSY_S, DEAD_S, HANG, LAUNCHERS, LOOP, RANKS, Ran, about, main, mpirun, nobody_left, ours, start


class Tests:
    def __init__(self, folder):
        self.at = folder

    def fault(self, name, ranks=3, limit="60", faulty=1):
        """Runs a loop in which a rank does `name`. Returns what happened, and the seconds from there to the end."""
        file = self.at / "fault"
        file.unlink(missing_ok=True)
        ran = Ran(RANKS, ranks, limit, "loop", LOOP, name, faulty, FAULT_FILE=str(file))
        assert file.exists(), ran
        return ran, time.time() - file.stat().st_mtime

    def test_every_operation_between_2_and_between_4_processes(self):
        for ranks in (2, 4):
            ran = Ran(RANKS, ranks, 60, "ops").expect(0, lines=0)
            assert ran.out == f"{ranks} ranks, all right\n", ran

    def test_every_operation_within_the_groups_of_a_grid(self):
        for ranks, tp in ((4, 2), (4, 4), (3, 1)):
            ran = Ran(RANKS, ranks, 60, "ops", tp).expect(0, lines=0)
            assert ran.out == f"{ranks // tp} x {tp} ranks, all right\n", ran

    def test_a_rank_that_stops_in_a_grid_is_named_by_the_ranks_of_other_groups_too(self):
        for name, what in (("stop", "is stopped"), ("sleep", "hangs: no sign of life for")):
            file = self.at / "fault"
            Ran(RANKS, 4, HANG, "loop", 60, name, 3, 2, FAULT_FILE=str(file)).expect(
                5, r"rank 3 \(pid \d+\), in phase rollout, after all_reduce_sum, its call \d+ " + what)
            nobody_left()

    def test_every_operation_between_3_processes_under_mpirun(self):
        ran = mpirun("-n", 3, RANKS, 3, 60, "ops").expect(0, lines=0)
        assert ran.out.replace("\r", "") == "3 ranks, all right\n", ran

    def test_a_size_that_is_not_the_configured_one(self):
        mpirun("-n", 2, RANKS, 3, 60, "ops").expect(2, "= 3 ranks, but mpirun started 2")
        mpirun("-n", 1, RANKS, 2, 60, "ops").expect(2, "= 2 ranks, but mpirun started 1")

    def test_an_srun_without_pmix(self):
        Ran(RANKS, 2, 60, "ops", SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="0", OMPI_MCA_plm_rsh_agent="true").expect(
            2, "srun says that there are 2 ranks, MPI sees 1: start them with .* srun --mpi=pmix")

    def test_no_mpirun_in_path(self):
        Ran(RANKS, 2, 60, "ops", PATH=str(self.at)).expect(2, "no mpirun in PATH; install openmpi-bin")

    def test_an_mpirun_that_fails(self):
        (self.at / "bin").mkdir()
        (self.at / "bin/mpirun").write_text("#!/bin/sh\nexit 1\n")
        (self.at / "bin/mpirun").chmod(0o755)
        Ran(RANKS, 2, 60, "ops", PATH=str(self.at / "bin")).expect(2, r"mpirun could not start 2 ranks \(exit code 1\)")

    def test_ranks_that_start_differently(self):
        # By a shell: Open MPI 5.0.7's mpirun crashes on two programs with ":" between them.
        mpirun("-n", 2, "sh", "-c", f"exec {RANKS} 2 $((60 + OMPI_COMM_WORLD_RANK)) loop 1").expect(
            2, r"rank 1 on \S+ has another argument than rank 0 on \S+: 61 against 60; start all ranks alike")

    def test_a_killed_and_an_aborted_rank(self):
        for name, what in (("kill", "signal 9"), ("abort", "signal 6")):
            ran, seconds = self.fault(name)
            ran.expect(5, r"rank 1 \(pid \d+\), in phase rollout, after all_reduce_sum, its call \d+ (was killed by " + what + "|has died)")
            assert seconds < DEAD_S + BUSY_S, seconds
            nobody_left()

    def test_a_rank_that_just_exits(self):
        ran, seconds = self.fault("exit")
        ran.expect(5, r"rank 1 \(pid \d+\).*, its call \d+ (ended with exit code|has died)")
        assert seconds < DEAD_S + BUSY_S, seconds

    def test_a_stopped_rank(self):
        ran, seconds = self.fault("stop", limit=HANG)
        ran.expect(5, r"rank 1 \(pid \d+\), in phase rollout, after all_reduce_sum, its call \d+ is stopped")
        assert float(HANG) <= seconds < float(HANG) + DEAD_S + BUSY_S, seconds
        nobody_left()

    def test_a_rank_that_sleeps(self):
        ran, seconds = self.fault("sleep", limit=HANG)
        ran.expect(5, r"rank 1 \(pid \d+\), in phase rollout, after all_reduce_sum, its call \d+ hangs: no sign of life for")
        assert float(HANG) <= seconds < float(HANG) + DEAD_S + BUSY_S, seconds
        nobody_left()

    def test_a_collective_that_one_rank_skips(self):
        ran, seconds = self.fault("skip")
        ran.expect(5, r"out of step: rank 1 calls barrier.*, its call (\d+); rank 0 calls all_reduce_max of 2 f64, its call \1")
        assert seconds < DEAD_S + BUSY_S, seconds

    def test_a_rank_out_of_memory(self):
        ran, seconds = self.fault("memory")
        ran.expect(3, r"^ranks: rank 1 on \S+: out of memory$")
        assert seconds < DEAD_S + BUSY_S, seconds
        nobody_left()

    def test_an_error_that_is_agreed_on(self):
        self.fault("agreed")[0].expect(2, "^ranks: rank 1: a bad row$")

    def loop(self, ranks=2):
        """A loop without end; returns it with the processes of its ranks, once they run."""
        child = start([RANKS, ranks, 60, "loop", LOOP])
        while child.poll() is None:
            pids = [p for p in ours() if p != child.pid and about(p, "comm").strip() not in LAUNCHERS]
            if len(pids) == ranks and all(self.runs(p) for p in pids): return child, pids
            time.sleep(0.1)
        raise AssertionError(f"the loop ended: {child.communicate()}")

    @staticmethod
    def runs(pid):
        """SIGINT is caught in the loop."""
        caught = re.search(rb"SigCgt:\s*(\w+)", about(pid, "status"))
        return caught and int(caught[1], 16) >> (signal.SIGINT - 1) & 1

    def test_an_interrupted_run(self):
        for sent in (signal.SIGINT, signal.SIGTERM):
            child, _ = self.loop()
            child.send_signal(sent)
            out, err = child.communicate(timeout=LOOP / 2)
            assert child.returncode == 130 and err == "", (child.returncode, err)
            nobody_left()

    def test_a_killed_launcher_and_a_killed_mpirun_leave_nobody(self):
        child, _ = self.loop()
        child.kill()
        child.communicate()
        nobody_left()
        child, pids = self.loop()
        os.kill(next(p for p in ours() if p not in pids + [child.pid]), signal.SIGKILL)
        out, err = child.communicate(timeout=LOOP / 2)
        assert child.returncode == 5 and len(err.splitlines()) == 1, (child.returncode, err)
        nobody_left()

    def test_no_rank_listens_on_a_port(self):
        child, pids = self.loop()
        listening = set()
        for table in ("tcp", "tcp6"):
            path = pathlib.Path("/proc/net") / table
            for line in path.read_text().splitlines()[1:] if path.exists() else []:
                fields = line.split()
                if fields[3] == "0A": listening.add(f"socket:[{fields[9]}]")
        links = [(p, fd) for p in pids for fd in pathlib.Path(f"/proc/{p}/fd").iterdir()]
        found = [(p, fd) for p, fd in links if os.path.lexists(fd) and os.readlink(fd) in listening]
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=LOOP / 2)
        assert links and not found, found


if __name__ == "__main__":
    sys.exit(main(Tests))
