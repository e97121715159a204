// franz-go's admin calls (kadm), one after another; prints a line for each thing that the broker answers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var ctx, _ = context.WithTimeout(context.Background(), 2*time.Minute)

func say(what string, more ...any) { fmt.Println(append([]any{what + ":"}, more...)...) }

// What the broker said, without what the library puts around it.
func code(err error) string {
	var of *kerr.Error
	if errors.As(err, &of) {
		return of.Message
	}
	if err != nil {
		return err.Error()
	}
	return "done"
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	return value
}

func text(value *string) string {
	if value == nil {
		return "none"
	}
	return *value
}

func main() {
	client := must(kgo.NewClient(kgo.SeedBrokers(os.Args[1]), kgo.RecordPartitioner(kgo.ManualPartitioner())))
	defer client.Close()
	admin := kadm.NewClient(client)

	create := func(what string, partitions int32, replicas int16, config map[string]*string, name string) {
		created := must(admin.CreateTopics(ctx, partitions, replicas, config, name))
		answer := created[name]
		say(what+" "+name, code(answer.Err), answer.ErrMessage, answer.NumPartitions, answer.ReplicationFactor)
	}
	minute := "60000"
	create("create", 2, 1, nil, "plain")
	create("create", 3, 1, map[string]*string{"retention.ms": &minute}, "short")
	create("create again", 2, 1, nil, "plain")
	create("create wrong", 1, 1, nil, "bad name")
	create("create wrong", 1, 7, nil, "many")

	added := must(admin.UpdatePartitions(ctx, 4, "plain"))
	say("add partitions plain", code(added["plain"].Err), added["plain"].ErrMessage)
	added = must(admin.UpdatePartitions(ctx, 3, "plain"))
	say("add fewer plain", code(added["plain"].Err), added["plain"].ErrMessage)

	topics := must(admin.ListTopics(ctx))
	for _, topic := range topics.Sorted() {
		var partitions []any
		for _, one := range topic.Partitions.Sorted() {
			partitions = append(partitions, one.Partition, one.Leader, one.Replicas, one.ISR)
		}
		say("topic "+topic.Topic, partitions)
	}

	configs := func(of kadm.ResourceConfigs) {
		for _, resource := range of {
			sort.Slice(resource.Configs, func(a, b int) bool { return resource.Configs[a].Key < resource.Configs[b].Key })
			for _, one := range resource.Configs {
				switch one.Key {
				case "retention.ms", "retention.bytes", "cleanup.policy", "max.message.bytes", "log.retention.ms":
					var synonyms []string
					for _, synonym := range one.Synonyms {
						synonyms = append(synonyms, synonym.Key+"="+text(synonym.Value)+" "+synonym.Source.String())
					}
					say("config "+resource.Name+" "+one.Key, text(one.Value), one.Source.String(), synonyms)
				}
			}
		}
	}
	configs(must(admin.DescribeTopicConfigs(ctx, "short")))
	configs(must(admin.DescribeBrokerConfigs(ctx, 1)))
	alter := func(what string, changes ...kadm.AlterConfig) {
		for _, one := range must(admin.AlterTopicConfigs(ctx, changes, "short")) {
			say(what+" "+one.Name, code(one.Err), one.ErrMessage)
		}
	}
	hour, soon := "3600000", "soon"
	alter("set", kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: &hour})
	alter("set to nonsense", kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: &soon})
	configs(must(admin.DescribeTopicConfigs(ctx, "short")))
	alter("delete", kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"})

	for n := 0; n < 10; n++ {
		must(0, client.ProduceSync(ctx, &kgo.Record{Topic: "plain", Partition: 1, Value: []byte("value")}).FirstErr())
	}
	edges := func(what string) {
		start := must(admin.ListStartOffsets(ctx, "plain"))
		end := must(admin.ListEndOffsets(ctx, "plain"))
		first, _ := start.Lookup("plain", 1)
		last, _ := end.Lookup("plain", 1)
		say(what, first.Offset, last.Offset)
	}
	edges("offsets")
	remove := func(what string, to int64) {
		offsets := make(kadm.Offsets)
		offsets.AddOffset("plain", 1, to, -1)
		deleted := must(admin.DeleteRecords(ctx, offsets))
		answer, _ := deleted.Lookup("plain", 1)
		say(what, code(answer.Err), answer.LowWatermark)
	}
	remove("delete records", 4)
	remove("delete too many", 40)
	edges("offsets")

	logs := must(admin.DescribeAllLogDirs(ctx, nil))
	for _, dirs := range logs {
		dirs.Each(func(dir kadm.DescribedLogDir) {
			held := 0
			dir.Topics.Each(func(one kadm.DescribedLogDirPartition) {
				if one.Topic == "plain" || one.Topic == "short" {
					held++
				}
			})
			say("log directory", code(dir.Err), held, "partitions")
		})
	}

	metadata := must(admin.BrokerMetadata(ctx))
	say("cluster", metadata.Brokers.NodeIDs(), "controller", metadata.Controller)
	gone := must(admin.DeleteTopics(ctx, "plain", "short", "nowhere"))
	for _, name := range []string{"plain", "short", "nowhere"} {
		say("drop "+name, code(gone[name].Err))
	}
}
