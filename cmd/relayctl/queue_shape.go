package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

// shapeRow is the JSON of one row of a shape.
type shapeRow struct {
	At      string     `json:"at"`
	To      string     `json:"to"`
	Agency  string     `json:"agency"`
	Others  bool       `json:"other_inboxes"`
	Expired bool       `json:"expired"`
	Total   uint64     `json:"total"`
	Size    uint64     `json:"size"`
	Counts  []shapeAge `json:"counts"`
}

// shapeAge is how many entries are at most that old; the last has no end.
type shapeAge struct {
	UpTo  *float64 `json:"up_to_seconds"`
	Count uint64   `json:"count"`
}

func newQueueShape(options *cli.Options) *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use: "shape", Short: "Count what waits by destination and age", Args: cobra.NoArgs,
		Long: `Count what waits at each relay, by destination and age: what grows old shows where
something is stuck. The 100 fullest inboxes of a relay have a row each, the others
one together, and so have its dead letters (--expired of "relayctl queue list").

Fields with -o json, one line per row: at, to (relay, or ""), agency (inbox, or ""),
other_inboxes (all inboxes without a row of their own), expired (dead letters), total,
size (bytes of all files), counts (up_to_seconds, null for the oldest; count).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := connectAll(cmd, options, only)
			if err != nil {
				return err
			}
			defer m.Close()
			var mu sync.Mutex
			var rows []shapeRow
			failures := m.Each(cmd.Context(), func(ctx context.Context, member operator.Member) error {
				r, err := member.Conn.Custody.ShapeQueue(ctx, &adminv1.ShapeQueueRequest{})
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				for _, row := range r.GetRows() {
					rows = append(rows, shapeOf(member.ID, r.GetAges(), row))
				}
				return nil
			})
			if len(failures) > 0 {
				return firstOf(failures)
			}
			slices.SortStableFunc(rows, func(a, b shapeRow) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(b.Total, a.Total)) })
			return list(options.Output(cmd), shapeHead(rows), rows, shapeRow.line)
		},
	}
	cmd.Flags().StringVar(&only, "relay", "", "ask this relay only")
	return cmd
}

func shapeOf(at string, ages []*durationpb.Duration, r *adminv1.ShapeRow) shapeRow {
	row := shapeRow{At: at, To: r.GetRelayId(), Agency: r.GetAgencyCode(), Expired: r.GetExpired(), Size: r.GetSize(), Counts: []shapeAge{}}
	row.Others = row.To == "" && row.Agency == "" && !row.Expired
	for i, n := range r.GetCounts() {
		age := shapeAge{Count: n}
		if i < len(ages) {
			seconds := ages[i].AsDuration().Seconds()
			age.UpTo = &seconds
		}
		row.Total += n
		row.Counts = append(row.Counts, age)
	}
	return row
}

func shapeHead(rows []shapeRow) string {
	head := "AT\tFOR\tTOTAL"
	if len(rows) == 0 {
		return head
	}
	for _, age := range rows[0].Counts {
		if age.UpTo == nil {
			head += "\tOLDER"
			continue
		}
		head += "\t≤" + ageName(time.Duration(*age.UpTo*float64(time.Second)))
	}
	return head
}

func ageName(d time.Duration) string {
	switch {
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

func (r shapeRow) line() string {
	what := "relay " + r.To
	switch {
	case r.Expired:
		what = "(dead letters)"
	case r.Others:
		what = "(other inboxes)"
	case r.Agency != "":
		what = "inbox " + r.Agency
	}
	var counts strings.Builder
	for _, age := range r.Counts {
		fmt.Fprintf(&counts, "\t%d", age.Count)
	}
	return fmt.Sprintf("%s\t%s\t%d%s", r.At, what, r.Total, counts.String())
}
