"""The judge of `ack_after_sync.py` on traces made by hand: it accepts the right order and rejects each wrong one."""

import unittest

from ack_judge import judge

SOCKET = "20<TCP:[127.0.0.1:9092->127.0.0.1:40000]>"
OTHER_SOCKET = "21<TCP:[127.0.0.1:9092->127.0.0.1:40001]>"
JOURNAL = "9</data/journal/0001>"

RECEIVE = rf'100 recvfrom({SOCKET}, "\0\0mark-1\0", 8192, 0, NULL, NULL) = 180'
WRITE = rf'101 pwrite64({JOURNAL}, "\7\7mark-1\0", 4096, 8192) = 4096'
SYNC = f"101 fdatasync({JOURNAL}) = 0"
SYNC_ENTERS = f"101 fdatasync({JOURNAL} <unfinished ...>"
SYNC_LEAVES = "101 <... fdatasync resumed>) = 0"
ANSWER = rf'100 sendto({SOCKET}, "\0\0\0\60", 60, MSG_NOSIGNAL, NULL, 0) = 60'
OTHER_ANSWER = rf'100 sendto({OTHER_SOCKET}, "\0\0\0\60", 60, MSG_NOSIGNAL, NULL, 0) = 60'


class Judge(unittest.TestCase):
    def accepts(self, *lines):
        self.assertEqual(judge(lines, ["mark-1"]), [])

    def rejects(self, complaint, *lines):
        found = judge(lines, ["mark-1"])
        self.assertEqual(len(found), 1, found)
        self.assertIn(complaint, found[0][1])

    def test_write_sync_answer_is_right(self):
        self.accepts(RECEIVE, WRITE, SYNC, ANSWER)

    def test_calls_that_overlap_are_put_together(self):
        self.accepts(RECEIVE, WRITE, SYNC_ENTERS, OTHER_ANSWER, SYNC_LEAVES, ANSWER)

    def test_a_request_that_arrives_in_a_resumed_call_is_found(self):
        enters = f"100 recvfrom({SOCKET},  <unfinished ...>"
        leaves = r'100 <... recvfrom resumed>"\0mark-1", 8192, 0, NULL, NULL) = 180'
        self.accepts(enters, leaves, WRITE, SYNC, ANSWER)
        self.rejects("before the sync", enters, leaves, WRITE, ANSWER, SYNC)

    def test_an_answer_before_the_sync_is_wrong(self):
        self.rejects("before the sync", RECEIVE, WRITE, ANSWER, SYNC)

    def test_an_answer_while_the_sync_is_under_way_is_wrong(self):
        self.rejects("before the sync", RECEIVE, WRITE, SYNC_ENTERS, ANSWER, SYNC_LEAVES)

    def test_an_answer_before_the_write_is_wrong(self):
        self.rejects("before the sync", RECEIVE, ANSWER, WRITE, SYNC)

    def test_a_sync_that_started_before_the_write_returned_covers_nothing(self):
        write_enters = rf'102 pwrite64({JOURNAL}, "mark-1", 4096, 8192 <unfinished ...>'
        write_leaves = "102 <... pwrite64 resumed>) = 4096"
        self.rejects("never synced", RECEIVE, write_enters, SYNC_ENTERS, write_leaves, SYNC_LEAVES, ANSWER)

    def test_no_sync_at_all_is_wrong(self):
        self.rejects("never synced", RECEIVE, WRITE, ANSWER)

    def test_a_sync_that_was_made_a_no_op_is_no_sync(self):
        self.rejects("never synced", RECEIVE, WRITE, f"{SYNC} (INJECTED)", ANSWER)

    def test_a_sync_that_was_only_delayed_is_a_sync(self):
        self.accepts(RECEIVE, WRITE, f"{SYNC} (DELAYED)", ANSWER)

    def test_a_failed_sync_is_no_sync(self):
        self.rejects("never synced", RECEIVE, WRITE, f"101 fdatasync({JOURNAL}) = -1 EIO (Input/output error)", ANSWER)

    def test_the_sync_of_another_file_is_no_sync(self):
        self.rejects("never synced", RECEIVE, WRITE, "101 fdatasync(8</data/raft/0001>) = 0", ANSWER)

    def test_no_write_of_the_record_is_wrong(self):
        self.rejects("no write", RECEIVE, SYNC, ANSWER)

    def test_a_file_opened_for_synced_writes_needs_no_sync(self):
        opened = '101 openat(AT_FDCWD</>, "/data/journal/0001", O_WRONLY|O_DSYNC) = 9</data/journal/0001>'
        self.accepts(opened, RECEIVE, WRITE, ANSWER)

    def test_a_request_that_never_arrived_proves_nothing(self):
        self.rejects("not in the trace", WRITE, SYNC, ANSWER)


if __name__ == "__main__":
    unittest.main()
