package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/truclienthong/truc/cmd/internal/cli"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// tree is a small tool: one command that ends with err, one group.
func tree(err error) *cobra.Command {
	root := &cobra.Command{Use: "tool"}
	options := cli.AddOptions(root)
	do := &cobra.Command{Use: "do NAME", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if err != nil {
			return err
		}
		return options.Output(cmd).Print(map[string]string{"name": args[0]}, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, "did", args[0])
			return err
		})
	}}
	do.Flags().String("must", "", "")
	need := &cobra.Command{Use: "need", RunE: func(*cobra.Command, []string) error { return nil }}
	need.Flags().String("must", "", "")
	if err := need.MarkFlagRequired("must"); err != nil {
		panic(err)
	}
	group := &cobra.Command{Use: "group"}
	group.AddCommand(&cobra.Command{Use: "member", Run: func(*cobra.Command, []string) {}})
	root.AddCommand(do, need, group)
	return root
}

func TestExitCodes(t *testing.T) {
	invalid := exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	problems := envelope.RefuseProblems([]envelope.Problem{
		{Field: "header.kind", Reason: invalid, Description: "missing"},
		{Field: "header.parts[2].name", Reason: invalid, Description: "has a\x1b[31m control"},
	})
	busy := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_RATE_LIMITED, "too many")
	busy.RetryAfter, busy.Quota = 3*time.Second, "agency/G22"
	for name, c := range map[string]struct {
		args   []string
		err    error
		code   int
		stdout string
		stderr []string
	}{
		"done":                 {args: []string{"do", "x"}, stdout: "did x\n"},
		"done as json":         {args: []string{"do", "<x>", "-o", "json"}, stdout: `{"name":"<x>"}` + "\n"},
		"help":                 {args: []string{"do", "--help"}},
		"failed":               {args: []string{"do", "x"}, err: errors.New("disk\r on\x1b fire"), code: 1, stderr: []string{"tool: disk  on  fire\n"}},
		"failed twice":         {args: []string{"do", "x"}, err: fmt.Errorf("rows: %w", errors.Join(errors.New("line 2: a"), errors.New("line 3: b"))), code: 1, stderr: []string{"tool: rows: line 2: a\n  line 3: b\n"}},
		"refused within":       {args: []string{"do", "x"}, err: fmt.Errorf("envelope 1: %w", status.Error(codes.NotFound, "not known")), code: 1, stderr: []string{"tool: refused: envelope 1: not known\n"}},
		"out of reach":         {args: []string{"do", "x"}, err: fmt.Errorf("relay a:1: %w", status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp a:1: connection refused"`)), code: 1, stderr: []string{"tool: relay a:1: dial tcp a:1: connection refused\n"}},
		"refused":              {args: []string{"do", "x"}, err: fmt.Errorf("submit: %w", problems), code: 1, stderr: []string{"2 problems", "\n  header.kind: missing\n", "\n  header.parts[2].name: has a [31m control\n"}},
		"temporary":            {args: []string{"do", "x"}, err: busy, code: 1, stderr: []string{"too many", "quota: agency/G22", "try again in 3s"}},
		"refused over grpc":    {args: []string{"do", "x"}, err: busy.GRPCStatus().Err(), code: 1, stderr: []string{"tool: too many\n", "try again in 3s"}},
		"interrupted":          {args: []string{"do", "x"}, err: context.Canceled, code: 1, stderr: []string{"interrupted"}},
		"usage by the command": {args: []string{"do", "x"}, err: cli.Usage("no such day"), code: 2, stderr: []string{"tool do: no such day", "--help"}},
		"unknown flag":         {args: []string{"do", "x", "--no-such"}, code: 2, stderr: []string{"--no-such"}},
		"missing argument":     {args: []string{"do"}, code: 2, stderr: []string{"accepts 1 arg"}},
		"missing flag":         {args: []string{"need"}, code: 2, stderr: []string{"must"}},
		"unknown command":      {args: []string{"undo"}, code: 2, stderr: []string{"undo"}},
		"unknown member":       {args: []string{"group", "undo"}, code: 2, stderr: []string{"undo"}},
		"group alone":          {args: []string{"group"}, code: 2, stderr: []string{"member"}},
		"nothing":              {args: nil, code: 2, stderr: []string{"Available Commands"}},
		"unknown output":       {args: []string{"do", "x", "-o", "xml"}, code: 2, stderr: []string{"xml"}},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			got := cli.Execute(t.Context(), tree(c.err), append([]string{}, c.args...), &stdout, &stderr)
			if got != c.code {
				t.Errorf("exit code %d, want %d; stderr %q", got, c.code, stderr.String())
			}
			if c.code != 0 && stdout.Len() > 0 {
				t.Errorf("standard output %q on failure, want nothing", stdout.String())
			}
			if c.stdout != "" && stdout.String() != c.stdout {
				t.Errorf("standard output %q, want %q", stdout.String(), c.stdout)
			}
			for _, want := range c.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("standard error %q, want %q in it", stderr.String(), want)
				}
			}
		})
	}
}

func TestProfileFromEnvironment(t *testing.T) {
	root := &cobra.Command{Use: "tool", Run: func(*cobra.Command, []string) {}}
	options := cli.AddOptions(root)
	t.Setenv(cli.ProfileVariable, "")
	if _, err := options.Profile(); err == nil {
		t.Error("no profile named, got no error")
	}
	t.Setenv(cli.ProfileVariable, "/etc/truc/H26.yaml")
	if got, err := options.Profile(); err != nil || got != "/etc/truc/H26.yaml" {
		t.Errorf("profile %q, %v; want that of the environment", got, err)
	}
	if err := root.ParseFlags([]string{"--profile", "other.yaml"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := options.Profile(); got != "other.yaml" {
		t.Errorf("profile %q, want the flag before the environment", got)
	}
}

func TestTimesAreVietnamTime(t *testing.T) {
	at := time.Date(2025, 10, 20, 18, 30, 0, 123_456_789, time.UTC)
	if got, want := cli.Stamp(at), "2025-10-21T01:30:00.123+07:00"; got != want {
		t.Errorf("stamp %s, want %s", got, want)
	}
	if got, want := cli.ShowTime(at), "2025-10-21 01:30:00"; got != want {
		t.Errorf("shown %s, want %s", got, want)
	}
	if cli.Stamp(time.Time{}) != "" || cli.ShowTime(time.Time{}) != "-" {
		t.Error("no time is written as one")
	}
}
