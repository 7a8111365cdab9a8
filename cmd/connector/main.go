// Connector is the command line of an agency: it sends documents, receives
// them into a folder, tells what became of one, and finds agencies.
package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/relay/agency"
)

func main() { os.Exit(cli.Run(newRoot())) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "connector",
		Short: "Send and receive documents over the document interconnection axis",
		Long: `Send and receive documents over the document interconnection axis (trục liên thông văn bản).

Every command needs a profile: a YAML file, given by the data centre, that names
the relays to call and the certificate to show. Name it with --profile FILE or
once for all with the environment variable TRUC_PROFILE:

  relays: [10.1.0.4:7400, 10.2.0.4:7400]   # host:port; the nearest that works is used
  certificate: H26.crt                     # files are relative to the profile
  key: H26.key
  trust: trust.pem
  agency: H26                              # the agency to speak for
  outbox: H26.outbox                       # own copies until two relays have them (this is the default)

Exit codes: 0 done; 1 refused or failed, with the reason on standard error, one
line per field at fault; 2 wrong usage.

With -o json every result is one object on one line of standard output. The help
of each command lists the fields; new ones may be added, none goes away. A field
that has no value is "", 0, false or an empty list. Times are ISO 8601 in Vietnam
time.

Completion of commands and flags in the shell: connector completion --help.`,
		Example: `  connector send --to H26,H48 --subject "V/v họp giao ban" --number 12 --notation UBND-VP congvan.pdf phuluc.docx
  connector receive --out /srv/vanban/den --watch
  connector status 0198c1de-7a52-8f00-9d6c-2b6d1f0e4a11 03
  connector track 0198c1de-7a52-8f00-9d6c-2b6d1f0e4a11
  connector outbox --tend
  connector agencies --search "hà nội"`,
	}
	options := cli.AddOptions(root)
	root.AddCommand(newSend(options), newReceive(options), newTrack(options), newStatus(options), newRecall(options), newOutbox(options), newAgencies(options))
	return root
}

// withClient runs a command with the client of the profile.
func withClient(cmd *cobra.Command, options *cli.Options, run func(*agency.Client, agency.Config) error) error {
	return withPatientClient(cmd, options, 0, run)
}

// withPatientClient is withClient with another Patience than that of the SDK.
func withPatientClient(cmd *cobra.Command, options *cli.Options, patience time.Duration, run func(*agency.Client, agency.Config) error) error {
	path, err := options.Profile()
	if err != nil {
		return err
	}
	config, err := agency.LoadProfile(path)
	if err != nil {
		return err
	}
	config.Logger, config.Patience = options.Logger(cmd), patience
	client, err := agency.New(config)
	if err != nil {
		return err
	}
	defer client.Close()
	return run(client, config)
}

// must is for what fails only when this program names a flag that it did not
// declare.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
