package main

import (
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/truclienthong/truc/cmd/internal/cli"
)

// list prints rows: one object per line, or a table.
func list[T any](out *cli.Output, head string, rows []T, line func(T) string) error {
	if out.JSON() {
		for _, row := range rows {
			if err := out.Print(row, nil); err != nil {
				return err
			}
		}
		return nil
	}
	return out.Table(func(w io.Writer) error {
		if _, err := fmt.Fprintln(w, head); err != nil {
			return err
		}
		for _, row := range rows {
			if _, err := fmt.Fprintln(w, line(row)); err != nil {
				return err
			}
		}
		return nil
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// milliseconds is nil where nothing is known.
func milliseconds(d *durationpb.Duration) *float64 {
	if d == nil {
		return nil
	}
	ms := float64(d.AsDuration()) / float64(time.Millisecond)
	return &ms
}

// stamp writes a time of the mesh; "" where there is none.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return cli.Stamp(t.AsTime())
}

// must is for what fails only when this program names a flag that it did not
// declare.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
