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

Exit status: 0 done, 1 refused or failed (the reason is on standard error),
2 wrong usage.`,
		Example: `  export TRUC_PROFILE=truc-dev/profiles/operator.yaml
  relayctl raft members
  relayctl agency list --under H26 --tier 4
  relayctl trace 0193fca0-5a1c-8000-8000-000000000000 -o json`,
	}
	options := cli.AddOptions(root)
	root.AddCommand(
		newRaft(options), newRelay(options), newAgency(options), newGateway(options), newGroup(options),
		newRule(options), newCA(options), newTrace(options),
	)
	return root
}
