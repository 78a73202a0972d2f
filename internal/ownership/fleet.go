package ownership

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// Fleet is who owns what, as the group's coordinator tells it.
type Fleet struct {
	Group   string
	State   string // as Kafka calls it: Stable, PreparingRebalance, ...
	At      time.Time
	Members []Member // by name
}

// Member is one process of a fleet.
type Member struct {
	Name   string // as the process calls itself
	Host   string // as the coordinator sees it
	Shards []int  // in order
	Self   bool
}

// fleetInterval is how often the fleet is looked at when nothing is heard of it.
const fleetInterval = 15 * time.Second

// watch tells Changed who owns what, until ctx ends.
func (g *Group) watch(ctx context.Context) {
	ticker := time.NewTicker(fleetInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.changed:
		case <-ticker.C:
		}
		fleet, err := g.look(ctx)
		if err != nil {
			if ctx.Err() == nil {
				g.options.Log.Debug("look at the consumer group", zap.Error(err))
			}
			continue
		}
		g.options.Changed(fleet)
	}
}

// look asks the coordinator for the members of the group.
func (g *Group) look(ctx context.Context) (Fleet, error) {
	answer, err := g.options.Client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{g.options.ID}})
	if err != nil {
		return Fleet{}, fmt.Errorf("describe consumer group %s: %w", g.options.ID, err)
	}
	if len(answer.Groups) != 1 {
		return Fleet{}, fmt.Errorf("describe consumer group %s: %w", g.options.ID, errors.New("the answer leaves it out"))
	}
	group := answer.Groups[0]
	if group.Error != nil {
		return Fleet{}, fmt.Errorf("describe consumer group %s: %w", g.options.ID, group.Error)
	}
	_, self := g.generation.get()
	fleet := Fleet{Group: g.options.ID, State: group.GroupState, At: time.Now()}
	for _, m := range group.Members {
		var told claim
		if json.Unmarshal(m.MemberMetadata.UserData, &told) != nil || told.Name == "" {
			told.Name = m.MemberID
		}
		// Kafka writes Java's form of an address: /10.0.0.4.
		shown := Member{Name: told.Name, Host: strings.TrimPrefix(m.ClientHost, "/"), Self: m.MemberID == self}
		for _, topic := range m.MemberAssignments.Topics {
			if topic.Topic == g.options.Topic {
				shown.Shards = append(shown.Shards, topic.Partitions...)
			}
		}
		slices.Sort(shown.Shards)
		fleet.Members = append(fleet.Members, shown)
	}
	slices.SortFunc(fleet.Members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Host, b.Host)) })
	return fleet, nil
}
