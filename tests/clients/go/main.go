// franz-go at its defaults (idempotent, acks=all): create, produce, read back, seek by timestamp.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const partitions = 3

var (
	bootstrap = flag.String("bootstrap", "", "broker")
	topic     = flag.String("topic", "", "topic")
	records   = flag.Int("records", 0, "records")
	codec     = flag.String("codec", "none", "codec")
	baseMs    = flag.Int64("base-ms", 0, "timestamp of record 0")
	_         = flag.String("idempotence", "default", "on by default here")
)

func value(i int) string {
	b := []byte(fmt.Sprintf("%010d:", i))
	for j := 0; j < 89; j++ {
		b = append(b, byte(97+(i+j)%26))
	}
	return string(b)
}

func fail(format string, arguments ...any) {
	fmt.Printf("FAILED: "+format+"\n", arguments...)
	os.Exit(1)
}

func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func compression() kgo.Opt {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	return kgo.ProducerBatchCompression(codecs[*codec])
}

func produce(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(*bootstrap), compression())
	must(err, "client")
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err = admin.CreateTopic(ctx, partitions, 1, nil, *topic)
	must(err, "create topic")
	for i := 0; i < *records; i++ {
		record := &kgo.Record{
			Topic: *topic, Key: []byte("k" + strconv.Itoa(i)), Value: []byte(value(i)),
			Timestamp: time.UnixMilli(*baseMs + int64(i)),
		}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) { must(err, "produce") })
	}
	must(client.Flush(ctx), "flush")
}

func readBack(ctx context.Context) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(*bootstrap), kgo.ConsumeTopics(*topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	must(err, "client")
	defer client.Close()
	seen := make([]bool, *records)
	last := map[int32]int{}
	next := map[int32]int64{}
	// Per partition the first offset whose record is not earlier than the target.
	target := *baseMs + int64(*records/2)
	due := map[int32]int64{}
	for count := 0; count < *records; {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			fail("after %d records: fetch: %v", count, errs)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			i, err := strconv.Atoi(string(r.Key[1:]))
			must(err, "key")
			switch {
			case i >= *records || seen[i]:
				fail("record %d twice or never sent", i)
			case string(r.Value) != value(i):
				fail("record %d: content differs", i)
			case r.Offset != next[r.Partition]:
				fail("partition %d: offset %d where %d was due", r.Partition, r.Offset, next[r.Partition])
			case r.Offset > 0 && i <= last[r.Partition]:
				fail("partition %d: record %d after %d", r.Partition, i, last[r.Partition])
			case r.Timestamp.UnixMilli() != *baseMs+int64(i):
				fail("record %d: timestamp %v", i, r.Timestamp)
			}
			if _, found := due[r.Partition]; !found && r.Timestamp.UnixMilli() >= target {
				due[r.Partition] = r.Offset
			}
			seen[i] = true
			last[r.Partition] = i
			next[r.Partition] = r.Offset + 1
			count++
		})
	}
	offsets, err := kadm.NewClient(client).ListOffsetsAfterMilli(ctx, target, *topic)
	must(err, "list offsets")
	offsets.Each(func(found kadm.ListedOffset) {
		must(found.Err, "list offsets")
		// Nothing that late: franz-go answers with the end.
		want, exists := due[found.Partition]
		if !exists {
			want = next[found.Partition]
		}
		if found.Offset != want {
			fail("partition %d: seek gave offset %d, due was %d", found.Partition, found.Offset, want)
		}
	})
	fmt.Printf("ok: %d records (%d/%d/%d)\n", *records, next[0], next[1], next[2])
}

func main() {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	produce(ctx)
	readBack(ctx)
}
