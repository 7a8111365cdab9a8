// Command relayd runs a relay of the mesh: it takes documents from agencies,
// keeps them durable, and passes them to the relay that holds the recipient's
// inbox.
package main

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
)

func main() { os.Exit(cli.Run(newRoot())) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "relayd",
		Short: "Run a relay of the document interconnection axis",
		Long: `relayd runs a relay of the document interconnection axis.

To try everything on one machine:          relayd dev
To set up a relay:                         relayd init, have the request signed, relayd run
To prove that a stopped relay is whole:    relayd fsck

Exit status: 0 done, 1 failed (the reason is on standard error), 2 wrong usage.`,
		Version: version(),
	}
	options := cli.AddOptions(root)
	root.AddCommand(newDev(options), newInit(options), newRun(), newFsck(options))
	return root
}

// version is that of the build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += " " + s.Value[:12]
		}
	}
	return v
}
