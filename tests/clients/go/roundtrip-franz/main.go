// franz-go at its defaults (idempotent, acks=all): create, produce, read back, seek by timestamp.
package main

import (
	"context"
	"flag"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	. "chronik/tests/clients/roundtrip"
)

func compression() kgo.Opt {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	return kgo.ProducerBatchCompression(codecs[*Codec])
}

func produce(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(*Bootstrap), compression())
	Must(err, "client")
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err = admin.CreateTopic(ctx, Partitions, 1, nil, *Topic)
	Must(err, "create topic")
	for i := 0; i < *Records; i++ {
		record := &kgo.Record{Topic: *Topic, Key: []byte(Key(i)), Value: []byte(Value(i)), Timestamp: Timestamp(i)}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) { Must(err, "produce") })
	}
	Must(client.Flush(ctx), "flush")
}

func readBack(ctx context.Context) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(*Bootstrap), kgo.ConsumeTopics(*Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	Must(err, "client")
	defer client.Close()
	readback := NewReadback()
	for !readback.Complete() {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			Fail("fetch: %v", errs)
		}
		fetches.EachRecord(func(r *kgo.Record) { readback.Add(r.Partition, r.Offset, r.Timestamp, r.Key, r.Value) })
	}
	offsets, err := kadm.NewClient(client).ListOffsetsAfterMilli(ctx, Target().UnixMilli(), *Topic)
	Must(err, "list offsets")
	offsets.Each(func(found kadm.ListedOffset) {
		Must(found.Err, "list offsets")
		// Nothing that late: franz-go answers with the end.
		readback.CheckSeek(found.Partition, found.Offset, readback.End(found.Partition))
	})
	readback.Done()
}

func main() {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	produce(ctx)
	readBack(ctx)
}
