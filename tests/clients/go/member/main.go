// franz-go: a member of a group, which says what it is assigned, reads and commits.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	bootstrap = flag.String("bootstrap", "", "broker")
	topic     = flag.String("topic", "", "topic")
	group     = flag.String("group", "", "group")
	mode      = flag.String("mode", "eager", "how partitions are assigned")
	instance  = flag.String("instance", "", "of a static member")
)

// What it has, as its callbacks say.
type assignment struct {
	sync.Mutex
	partitions map[int32]bool
}

func (a *assignment) change(of map[string][]int32, has bool) {
	a.Lock()
	defer a.Unlock()
	for _, partition := range of[*topic] {
		if has {
			a.partitions[partition] = true
		} else {
			delete(a.partitions, partition)
		}
	}
	var told []int
	for partition := range a.partitions {
		told = append(told, int(partition))
	}
	sort.Ints(told)
	fmt.Printf("A %s\n", strings.Trim(strings.ReplaceAll(fmt.Sprint(told), " ", ","), "[]"))
}

func main() {
	flag.Parse()
	has := &assignment{partitions: map[int32]bool{}}
	changed := func(now bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, of map[string][]int32) { has.change(of, now) }
	}
	balancer := kgo.RangeBalancer()
	if *mode == "cooperative" {
		balancer = kgo.CooperativeStickyBalancer()
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(*bootstrap), kgo.ConsumerGroup(*group), kgo.ConsumeTopics(*topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Balancers(balancer), kgo.SessionTimeout(6 * time.Second),
		kgo.HeartbeatInterval(time.Second), kgo.OnPartitionsAssigned(changed(true)), kgo.OnPartitionsRevoked(changed(false)),
		kgo.OnPartitionsLost(changed(false)),
	}
	if *instance != "" {
		options = append(options, kgo.InstanceID(*instance))
	}
	client, err := kgo.NewClient(options...)
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
		fetches := client.PollFetches(leaving)
		count := 0
		fetches.EachRecord(func(record *kgo.Record) {
			fmt.Printf("R %d %d\n", record.Partition, record.Offset)
			count++
		})
		if count > 0 && client.CommitUncommittedOffsets(context.Background()) == nil {
			fmt.Println("C")
		}
	}
	client.Close()
}
