// Package roundtrip is what every client writes and what must come back, as ../../python/roundtrip.py has it.
package roundtrip

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const Partitions = 3

var (
	Bootstrap  = flag.String("bootstrap", "", "broker")
	Topic      = flag.String("topic", "", "topic")
	Records    = flag.Int("records", 0, "records")
	Codec      = flag.String("codec", "none", "codec")
	Idempotent = flag.String("idempotence", "default", "on, or as the client is without being told")
	baseMs     = flag.Int64("base-ms", 0, "timestamp of record 0")
)

func Key(i int) string { return "k" + strconv.Itoa(i) }

func Value(i int) string {
	b := []byte(fmt.Sprintf("%010d:", i))
	for j := 0; j < 89; j++ {
		b = append(b, byte(97+(i+j)%26))
	}
	return string(b)
}

func Timestamp(i int) time.Time { return time.UnixMilli(*baseMs + int64(i)) }

// Target is the time that is sought.
func Target() time.Time { return Timestamp(*Records / 2) }

func Fail(format string, arguments ...any) {
	fmt.Printf("FAILED: "+format+"\n", arguments...)
	os.Exit(1)
}

func Must(err error, what string) {
	if err != nil {
		Fail("%s: %v", what, err)
	}
}

// Readback checks records as they come, by partition.
type Readback struct {
	seen   []bool
	count  int
	last   map[int32]int
	next   map[int32]int64
	due    map[int32]int64
	sought int
}

func NewReadback() *Readback {
	if *Records == 0 || *baseMs == 0 {
		Fail("--records and --base-ms are numbers above 0")
	}
	return &Readback{make([]bool, *Records), 0, map[int32]int{}, map[int32]int64{}, map[int32]int64{}, 0}
}

func (r *Readback) Complete() bool { return r.count == *Records }

func (r *Readback) Add(partition int32, offset int64, timestamp time.Time, key, value []byte) {
	i, err := strconv.Atoi(strings.TrimPrefix(string(key), "k"))
	Must(err, "key")
	switch {
	case i >= *Records || r.seen[i]:
		Fail("record %d twice or never sent", i)
	case string(value) != Value(i):
		Fail("record %d: content differs", i)
	case offset != r.next[partition]:
		Fail("partition %d: offset %d where %d was due", partition, offset, r.next[partition])
	case offset > 0 && i <= r.last[partition]:
		Fail("partition %d: record %d after %d", partition, i, r.last[partition])
	case !timestamp.Equal(Timestamp(i)):
		Fail("record %d: timestamp %v", i, timestamp)
	}
	if _, found := r.due[partition]; !found && !timestamp.Before(Target()) {
		r.due[partition] = offset
	}
	r.seen[i] = true
	r.last[partition] = i
	r.next[partition] = offset + 1
	r.count++
}

// CheckSeek judges what a look-up of the target time gave; where nothing is that late, `none` is due.
func (r *Readback) CheckSeek(partition int32, offset, none int64) {
	r.sought++
	due, found := r.due[partition]
	if !found {
		due = none
	}
	if offset != due {
		Fail("partition %d: seek gave offset %d, due was %d", partition, offset, due)
	}
}

// End of a partition, as far as it was read.
func (r *Readback) End(partition int32) int64 { return r.next[partition] }

func (r *Readback) Done() {
	if r.sought != Partitions {
		Fail("a time was sought in %d partitions of %d", r.sought, Partitions)
	}
	fmt.Printf("ok: %d records (%d/%d/%d)\n", r.count, r.next[0], r.next[1], r.next[2])
}
