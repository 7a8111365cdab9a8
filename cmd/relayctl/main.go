// Command relayctl is the operator's tool: it grows, shrinks, repairs and
// watches the mesh by raft admin commands, keeps the directory, and finds one
// document anywhere.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
)

func main() { os.Exit(cli.Run(newRoot())) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "relayctl",
		Short: "Steer and watch a mesh of relays",
		Long: `relayctl steers and watches a mesh of relays.

It connects to the first relay of the profile that answers; any relay takes any
command. A profile is a YAML file:

  relays: [bac.example.vn:7400, trung.example.vn:7400]
  certificate: operator.crt
  key: operator.key
  trust: root.crt

Name it with --profile FILE, or once for all with the environment variable
TRUC_PROFILE. Files in it are relative to it.

Exit status: 0 done, 1 refused or failed (the reason is on standard error),
2 wrong usage.

With -o json every result is one object on one line of standard output. The help
of each command lists the fields; new ones may be added, none goes away. A field
that has no value is "", 0, false, null or an empty list. Times are ISO 8601 in
Vietnam time.

Completion of commands and flags in the shell: relayctl completion --help.`,
		Example: `  export TRUC_PROFILE=truc-dev/profiles/operator.yaml
  relayctl raft members
  relayctl agency list --under H26 --tier 4
  relayctl stats --by agency
  relayctl trace 0193fca0-5a1c-8000-8000-000000000000 -o json`,
	}
	options := cli.AddOptions(root)
	root.AddCommand(
		newRaft(options), newRelay(options), newAgency(options), newGateway(options), newGroup(options),
		newRule(options), newCA(options), newQueue(options), newTrace(options), newAudit(options),
		newStats(options),
	)
	return root
}
