package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay/envelope"
	"github.com/truclienthong/truc/routing"
)

func newAgencyImport(options *cli.Options) *cobra.Command {
	var home, drop string
	cmd := &cobra.Command{
		Use: "import FILE.csv|- ...", Short: "Add or change many agencies: all of them or none",
		Long: `Add or change many agencies in one step, a whole country if need be. The files are
CSV in UTF-8 with a header row; columns code, name, tier and parent_code are
needed, home, standby, aliases (separated by ";") and code_qcvn102 are used where
present. Several files are taken as one. "-" reads standard input.

Wrong rows are named by line, and then nothing is imported. Nothing is either
when this is interrupted or killed, or the mesh fails while it stages; from the
moment that all is staged it takes effect as a whole. Importing the same again
changes nothing that has. Agencies that are not in the files stay as they are.

HOMES. An agency without home gets that of its nearest superior, else the relay
with the fewest: where provinces have no superior, provinces are spread over the
relays, each with all below it. --home names a relay for every agency of the files
that has none there; those that are at home elsewhere move.

UNITS OF THE STATISTICS OFFICE have codes of 2 (province), 3 (district) or 5 digits
(commune). Together with a list of level 1, which has the columns code, name, kind
and gso_code, they get identification codes:

  province   01              H26, that of the row with gso_code 01
  district   001 below 01    H26.001
  commune    00001 of 001    H26.001.00001
  commune    00004 of 01     H26.00004, in lists without districts (since July 2025)

Such a commune is of tier 4, whatever its list says. The row VN is no agency: what
is below it is at the top. Bodies of the list of level 1 have their name and older
code from it, whatever other files say. Without a list of level 1 all codes are
taken as they stand.

Fields with -o json: read, changed (new or other than before), version (of the
directory after it); with --drop: done, id, version.`,
		Example: `  relayctl agency import agencies.csv
  relayctl agency import agency-codes-level1.csv admin-units-4tier.csv
  relayctl agency export | relayctl agency import -`,
		Args: func(_ *cobra.Command, args []string) error {
			if (drop == "") == (len(args) == 0) {
				return errors.New("name at least one file")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if drop != "" {
				return dropImport(cmd, options, drop)
			}
			if home != "" {
				if _, err := routing.ParseRelayID(home); err != nil {
					return cli.Usage("--home: %v", err)
				}
			}
			list, err := readAgencyFiles(cmd, args)
			if err != nil {
				return err
			}
			for _, a := range list.Agencies {
				if a.GetHomeRelayId() == "" {
					a.HomeRelayId = home
				}
			}
			return importAgencies(cmd, options, list)
		},
	}
	cmd.Flags().StringVar(&home, "home", "", "home relay of every agency that has none in the files")
	cmd.Flags().StringVar(&drop, "drop", "", "drop an import of this name that was cut off (one is dropped by itself by an import a quarter of an hour later)")
	return cmd
}

// readAgencyFiles reads the files, or refuses with the place of every fault.
func readAgencyFiles(cmd *cobra.Command, names []string) (*routing.AgencyList, error) {
	var files []routing.AgencyFile
	for _, name := range names {
		if name == "-" {
			files = append(files, routing.AgencyFile{Name: "standard input", Content: cmd.InOrStdin()})
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		files = append(files, routing.AgencyFile{Name: name, Content: file})
	}
	list, err := routing.ReadAgencyFiles(files...)
	var wrong *routing.FileError
	if !errors.As(err, &wrong) {
		return list, err
	}
	no := envelope.Refuse(exchangev1.ErrorReason_ERROR_REASON_INVALID_FIELD, "%v", wrong)
	for _, f := range wrong.Faults {
		if f.Place == "" {
			f.Place = names[0]
		}
		no.Problems = append(no.Problems, envelope.Problem{Field: f.Place, Reason: no.Reason, Description: f.Message})
	}
	if wrong.More > 0 {
		no.Problems = append(no.Problems, envelope.Problem{Field: "further on", Reason: no.Reason, Description: fmt.Sprintf("%d more", wrong.More)})
	}
	return nil, no
}

func importAgencies(cmd *cobra.Command, options *cli.Options, list *routing.AgencyList) error {
	c, err := connect(cmd, options)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.AwaitRelays(cmd.Context(), list.Agencies, func(missing string) {
		fmt.Fprintf(cmd.ErrOrStderr(), "waiting up to %s for relays to register: %s\n", operator.RelaysWithin, missing)
	}); err != nil {
		return err
	}
	result, err := c.Import(cmd.Context(), operator.Import{
		Agencies: list.Agencies, Place: list.Place, Progress: importProgress(cmd.ErrOrStderr(), len(list.Agencies)),
	})
	if err != nil {
		if cmd.Context().Err() != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), cli.OneLine(cli.Plain(err.Error()))) // what came of it
		}
		return err
	}
	return options.Output(cmd).Print(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d agencies read, %d added or changed (directory version %d)\n",
			result.Read, result.Changed, result.Version)
		return err
	})
}

// quietImport is up to how many agencies an import says nothing: it is over
// before anybody wonders. Where nobody watches, it says how far it is after so
// many each time.
const quietImport = 5_000

func importProgress(w io.Writer, all int) func(staged int) {
	if all <= quietImport {
		return nil
	}
	terminal, said := cli.Terminal(w), 0
	return func(staged int) {
		switch {
		case staged == all && terminal:
			fmt.Fprintf(w, "\r%d of %d agencies staged, taking effect\n", staged, all)
		case staged == all:
			fmt.Fprintf(w, "%d of %d agencies staged, taking effect\n", staged, all)
		case terminal:
			fmt.Fprintf(w, "\r%d of %d agencies staged", staged, all)
		case staged-said >= 4*quietImport:
			said = staged
			fmt.Fprintf(w, "%d of %d agencies staged\n", staged, all)
		}
	}
}

func dropImport(cmd *cobra.Command, options *cli.Options, name string) error {
	c, err := connect(cmd, options)
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.DropImport(cmd.Context(), name)
	if err != nil {
		return err
	}
	return printChanged(cmd, options, changed{Done: "dropped", ID: name, Version: r.GetVersion()})
}
