package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/truclienthong/truc/cmd/internal/cli"
	"github.com/truclienthong/truc/cmd/internal/operator"
	adminv1 "github.com/truclienthong/truc/proto/truc/admin/v1"
)

func newRelay(options *cli.Options) *cobra.Command {
	relay := &cobra.Command{Use: "relay", Short: "Relays of the directory, and how they are"}
	relay.AddCommand(newRelayList(options), newRelayShow(options), newRelayDrain(options), newRelayActivate(options), newRelayRetire(options))
	return relay
}

const relayFields = `Fields with -o json: id, region, address, state (active, draining, retired, lost),
homes (how many agencies have their inbox there), reachable (from the relay that
answers), round_trip_ms (null where not known), registered_at.`

// relayRow is the JSON of a relay.
type relayRow struct {
	ID          string   `json:"id"`
	Region      string   `json:"region"`
	Address     string   `json:"address"`
	State       string   `json:"state"`
	Homes       uint64   `json:"homes"`
	Reachable   bool     `json:"reachable"`
	RoundTripMS *float64 `json:"round_trip_ms"`
	Registered  string   `json:"registered_at"`
}

func relays(cmd *cobra.Command, c *operator.Conn) ([]relayRow, error) {
	r, err := c.Directory.ListRelays(cmd.Context(), &adminv1.ListRelaysRequest{})
	if err != nil {
		return nil, err
	}
	rows := make([]relayRow, 0, len(r.GetRelays()))
	for _, v := range r.GetRelays() {
		rows = append(rows, relayOf(v))
	}
	return rows, nil
}

func relayOf(v *adminv1.RelayView) relayRow {
	return relayRow{
		ID: v.GetRelay().GetId(), Region: v.GetRelay().GetRegion(), Address: v.GetRelay().GetAddress(),
		State: word(v.GetRelay().GetState().String(), "RELAY_STATE_"), Homes: v.GetHomes(), Reachable: v.GetReachable(),
		RoundTripMS: milliseconds(v.GetRoundTrip()), Registered: stamp(v.GetRelay().GetRegisteredAt()),
	}
}

func newRelayList(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the relays, as the one that answers sees them", Args: cobra.NoArgs,
		Long: "List the relays of the directory, as the one that answers sees them.\n\n" + relayFields,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			rows, err := relays(cmd, c)
			if err != nil {
				return err
			}
			return list(options.Output(cmd), "ID\tREGION\tADDRESS\tSTATE\tHOMES\tREACHABLE\tROUND TRIP", rows, func(r relayRow) string {
				trip := "-"
				if r.RoundTripMS != nil {
					trip = fmt.Sprintf("%.1fms", *r.RoundTripMS)
				}
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s\t%s", r.ID, r.Region, r.Address, r.State, r.Homes, yes(r.Reachable), trip)
			})
		},
	}
}

func newRelayShow(options *cli.Options) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one relay, and how it is", Args: cobra.ExactArgs(1),
		Long: "Show one relay, as the one that answers sees it, and what it says of itself.\n\n" + relayFields + "\n" + healthFields,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := lookUp(cmd, options)
			if err != nil {
				return err
			}
			defer c.Close()
			v, err := c.Relay(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			shown := relayShown{relayRow: relayOf(v)}
			if operator.InService(v.GetRelay()) {
				if shown.Health, err = healthOf(cmd.Context(), c, v.GetRelay()); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "note: relay %s does not answer: %s\n", args[0], cli.OneLine(plain(err)))
				}
			}
			out := options.Output(cmd)
			return out.Print(shown, func(io.Writer) error { return out.Table(shown.text) })
		},
	}
}
