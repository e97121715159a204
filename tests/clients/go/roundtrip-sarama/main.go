// sarama: create, produce (acks=all; idempotent where told), read back, seek by timestamp.
package main

import (
	"flag"
	"time"

	"github.com/IBM/sarama"

	. "chronik/tests/clients/roundtrip"
)

func configuration() *sarama.Config {
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Compression = codecs[*Codec]
	config.Producer.Return.Successes = true
	config.Consumer.Return.Errors = true
	if *Idempotent == "on" {
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
	}
	return config
}

func produce(client sarama.Client) {
	admin, err := sarama.NewClusterAdminFromClient(client)
	Must(err, "admin")
	Must(admin.CreateTopic(*Topic, &sarama.TopicDetail{NumPartitions: Partitions, ReplicationFactor: 1}, false), "create topic")
	producer, err := sarama.NewAsyncProducerFromClient(client)
	Must(err, "producer")
	go func() {
		for i := 0; i < *Records; i++ {
			producer.Input() <- &sarama.ProducerMessage{
				Topic: *Topic, Key: sarama.StringEncoder(Key(i)), Value: sarama.StringEncoder(Value(i)), Timestamp: Timestamp(i),
			}
		}
	}()
	for acknowledged := 0; acknowledged < *Records; {
		select {
		case <-producer.Successes():
			acknowledged++
		case err := <-producer.Errors():
			Must(err, "produce")
		}
	}
	Must(producer.Close(), "close")
}

func readBack(client sarama.Client) {
	consumer, err := sarama.NewConsumerFromClient(client)
	Must(err, "consumer")
	records := make(chan *sarama.ConsumerMessage)
	for partition := int32(0); partition < Partitions; partition++ {
		one, err := consumer.ConsumePartition(*Topic, partition, sarama.OffsetOldest)
		Must(err, "consume")
		go func() {
			for record := range one.Messages() {
				records <- record
			}
		}()
		go func() {
			for err := range one.Errors() {
				Must(err, "fetch")
			}
		}()
	}
	readback := NewReadback()
	late := time.After(150 * time.Second)
	for !readback.Complete() {
		select {
		case r := <-records:
			readback.Add(r.Partition, r.Offset, r.Timestamp, r.Key, r.Value)
		case <-late:
			Fail("records missing after 150 s")
		}
	}
	for partition := int32(0); partition < Partitions; partition++ {
		offset, err := client.GetOffset(*Topic, partition, Target().UnixMilli())
		Must(err, "list offsets")
		readback.CheckSeek(partition, offset, -1)
	}
	readback.Done()
}

func main() {
	flag.Parse()
	client, err := sarama.NewClient([]string{*Bootstrap}, configuration())
	Must(err, "client")
	produce(client)
	readBack(client)
}
