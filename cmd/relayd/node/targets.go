package node

import (
	"fmt"
	"time"

	exchangev1 "github.com/truclienthong/truc/proto/truc/exchange/v1"
	"github.com/truclienthong/truc/relay"
)

// Targets are how long after its acceptance every recipient has to have confirmed
// an envelope, by its urgency; one that has not is late, and the relay that
// accepted it says so. A status counts as khẩn.
type Targets struct {
	// Thuong is for thường; default 24h.
	Thuong Duration `yaml:"thuong,omitempty"`
	// Khan is for khẩn; default 15m.
	Khan Duration `yaml:"khan,omitempty"`
	// ThuongKhan is for thượng khẩn; default 5m.
	ThuongKhan Duration `yaml:"thuong_khan,omitempty"`
	// HoaToc is for hỏa tốc; default 1m.
	HoaToc Duration `yaml:"hoa_toc,omitempty"`
	// HoaTocHenGio is for hỏa tốc hẹn giờ, after its hour; default 1m.
	HoaTocHenGio Duration `yaml:"hoa_toc_hen_gio,omitempty"`
}

func (t Targets) relay() relay.Targets {
	return relay.Targets{
		exchangev1.Priority_PRIORITY_THUONG:          time.Duration(t.Thuong),
		exchangev1.Priority_PRIORITY_KHAN:            time.Duration(t.Khan),
		exchangev1.Priority_PRIORITY_THUONG_KHAN:     time.Duration(t.ThuongKhan),
		exchangev1.Priority_PRIORITY_HOA_TOC:         time.Duration(t.HoaToc),
		exchangev1.Priority_PRIORITY_HOA_TOC_HEN_GIO: time.Duration(t.HoaTocHenGio),
	}
}

func (t Targets) check() error {
	for lane, target := range t.relay() {
		if target < 0 {
			return fmt.Errorf("targets: that of priority %d is negative", lane)
		}
	}
	return nil
}
