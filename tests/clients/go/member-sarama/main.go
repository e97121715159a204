// sarama: a member of a group, which says what it is assigned, reads and commits.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

var (
	bootstrap = flag.String("bootstrap", "", "broker")
	topic     = flag.String("topic", "", "topic")
	group     = flag.String("group", "", "group")
	mode      = flag.String("mode", "eager", "how partitions are assigned")
	instance  = flag.String("instance", "", "of a static member")
)

type member struct{}

func (member) Setup(session sarama.ConsumerGroupSession) error {
	var told []int
	for _, partition := range session.Claims()[*topic] {
		told = append(told, int(partition))
	}
	sort.Ints(told)
	fmt.Printf("A %s\n", strings.Trim(strings.ReplaceAll(fmt.Sprint(told), " ", ","), "[]"))
	return nil
}

func (member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case record, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			fmt.Printf("R %d %d\n", record.Partition, record.Offset)
			session.MarkMessage(record, "")
			session.Commit()
			fmt.Println("C")
		case <-session.Context().Done():
			return nil
		}
	}
}

func main() {
	flag.Parse()
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = time.Second
	config.Consumer.Group.InstanceId = *instance
	client, err := sarama.NewConsumerGroup([]string{*bootstrap}, *group, config)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	leaving, leave := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		leave()
	}()
	for leaving.Err() == nil {
		if err := client.Consume(leaving, []string{*topic}, member{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(200 * time.Millisecond)
		}
	}
	client.Close()
}
