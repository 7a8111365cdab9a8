package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	directoryv1 "github.com/truclienthong/truc/proto/truc/directory/v1"
	"github.com/truclienthong/truc/relay/envelope"
)

// connect returns a connection to the first relay of the profile that answers.
func connect(cmd *cobra.Command, options *cli.Options) (*operator.Conn, error) {
	file, err := options.Profile()
	if err != nil {
		return nil, err
	}
	profile, err := operator.LoadProfile(file)
	if err != nil {
		return nil, err
	}
	return operator.Connect(cmd.Context(), profile, options.Logger(cmd))
}

// lookUp is connect for commands that read the directory: what was changed by
// the command before, at whichever relay, is seen.
func lookUp(cmd *cobra.Command, options *cli.Options) (*operator.Conn, error) {
	c, err := connect(cmd, options)
	if err != nil {
		return nil, err
	}
	if err := c.Fresh(cmd.Context()); err != nil {
		if cmd.Context().Err() != nil || !envelope.Temporary(err) {
			c.Close()
			return nil, err
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "note: the directory has no leader just now; this is the copy of one relay")
	}
	return c, nil
}

const changedFields = `Fields with -o json: done (what was done), id, version (of the directory after it).`

// changed is the JSON of commands that change the directory.
type changed struct {
	Done    string `json:"done"`
	ID      string `json:"id"`
	Version uint64 `json:"version"`
}

// changeDirectory runs one command and prints what came of it.
func changeDirectory(cmd *cobra.Command, options *cli.Options, what, id string, command *directoryv1.Command) error {
	c, err := connect(cmd, options)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.Change(cmd.Context(), command)
	if err != nil {
		return err
	}
	return printChanged(cmd, options, changed{Done: what, ID: id, Version: r.GetVersion()})
}

func printChanged(cmd *cobra.Command, options *cli.Options, result changed) error {
	return options.Output(cmd).Print(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s (directory version %d)\n", result.ID, result.Done, result.Version)
		return err
	})
}
