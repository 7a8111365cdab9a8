package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/relayd/node"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

func newRaftSnapshot(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "snapshot", Short: "Make the relay that answers write a snapshot now", Args: cobra.NoArgs,
		Long: `Make the relay that answers write a snapshot of the directory now, so that its log
becomes short. Relays do so by themselves now and then.

Fields with -o json: index, size (bytes).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Raft.Snapshot(cmd.Context(), &adminv1.SnapshotRequest{})
			if err != nil {
				return err
			}
			result := struct {
				Index uint64 `json:"index"`
				Size  uint64 `json:"size"`
			}{r.GetIndex(), r.GetSize()}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "snapshot at index %d, %d bytes\n", result.Index, result.Size)
				return err
			})
		},
	}
}

func newRaftBackup(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write a consistent copy of the directory to a file", Args: cobra.ExactArgs(1),
		Long: `Write a consistent copy of the directory (relays, agencies, groups, rules, gateways,
revocations; no documents) to FILE. A file that is there is replaced once the new
one is whole. Without a leader it is the copy of the relay that answers.

Fields with -o json: file, size (bytes).`,
		Example: `  relayctl raft backup directory-$(date +%F).bak`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			size, err := backup(cmd.Context(), c.Raft, args[0])
			if err != nil {
				return err
			}
			result := struct {
				File string `json:"file"`
				Size int64  `json:"size"`
			}{args[0], size}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %d bytes\n", args[0], size)
				return err
			})
		},
	}
}

// backup writes aside and renames, so that the file is whole or absent.
func backup(ctx context.Context, c adminv1.RaftServiceClient, file string) (size int64, err error) {
	stream, err := c.Backup(ctx, &adminv1.BackupRequest{})
	if err != nil {
		return 0, err
	}
	aside, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			aside.Close()
			os.Remove(aside.Name())
		}
	}()
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		n, err := aside.Write(piece.GetData())
		size += int64(n)
		if err != nil {
			return 0, err
		}
	}
	if err := aside.Sync(); err != nil {
		return 0, err
	}
	if err := aside.Close(); err != nil {
		return 0, err
	}
	return size, os.Rename(aside.Name(), file)
}

func newRaftRestore(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in place of the directory on every relay", Args: cobra.ExactArgs(1),
		Long: `Put a backup in place of the directory, on every relay at once. What was changed
after the backup is gone: agencies, homes and revocations too. The members of Raft
stay as they are, documents are not touched. A file that is damaged or no backup
changes nothing. Needs a leader.

Fields with -o json: directory_version, agencies (how many).`,
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			c, err := connect(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			stream, err := c.Raft.Restore(cmd.Context())
			if err != nil {
				return err
			}
			buffer := make([]byte, 256<<10)
			for {
				n, err := file.Read(buffer)
				if n > 0 {
					// A failed send hides its reason; CloseAndRecv has it.
					if stream.Send(&adminv1.RestoreRequest{Data: buffer[:n]}) != nil {
						break
					}
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return err
				}
			}
			r, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			result := struct {
				DirectoryVersion uint64 `json:"directory_version"`
				Agencies         uint64 `json:"agencies"`
			}{r.GetDirectoryVersion(), r.GetAgencies()}
			return options.Output(cmd).Print(result, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "restored: directory version %d, %d agencies\n", result.DirectoryVersion, result.Agencies)
				return err
			})
		},
	}
}

func newRaftRecover(options *cli.Options) *cobra.Command {
	var config, peers string
	cmd := &cobra.Command{
		Use: "recover --peers FILE --config relay.yaml", Short: "After quorum loss: set the members by hand (offline)", Args: cobra.NoArgs,
		Long: `When more than half of the voters are lost for good, stop the relays that are
left, run this on each of them with the same peers file, and start them again.
The directory goes on from what the relay with the longest log has.

Never while more than half of the voters may come back: that would make two
meshes. A lost voter does not come back with what it had: bring it in anew
(docs/operating.md).

The peers file is YAML or JSON:

  - {id: bac,   address: "bac.example.vn:7400",   voter: true}
  - {id: trung, address: "trung.example.vn:7400", voter: true}

Fields with -o json: done, id (of the relay).`,
		Example: `  relayctl raft recover --peers peers.yaml --config /etc/truc/relay.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := node.Load(config)
			if err != nil {
				return err
			}
			members, err := node.Recover(c, peers)
			if err != nil {
				return err
			}
			return options.Output(cmd).Print(done{Done: "recover", ID: c.ID}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %d members set; start the relay again\n", c.ID, members)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&peers, "peers", "", "file with the members of now")
	cmd.Flags().StringVar(&config, "config", "relay.yaml", "configuration of the stopped relay on this machine")
	must(cmd.MarkFlagRequired("peers"))
	return cmd
}
