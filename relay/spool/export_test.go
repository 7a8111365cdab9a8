package spool

import (
	"fmt"
	"time"

	"github.com/truclienthong/truc/relay/spool/index"
)

// Hurried has segments looked at all the time.
func Hurried(cfg Config) Config {
	cfg.reclaimEvery = time.Millisecond
	cfg.CopyAfter = time.Millisecond
	return cfg
}

// Dump returns everything the index says, apart from what counts runs.
func (s *Spool) Dump() map[string]string {
	out := make(map[string]string)
	v := s.store.View()
	defer v.Close()
	for table := range 16 {
		err := v.Each([]byte{byte(table)}, func(key, value []byte) error {
			if table != 0 || key[1] == index.CountersKey()[1] {
				out[fmt.Sprintf("%x", key)] = fmt.Sprintf("%x", value)
			}
			return nil
		})
		if err != nil {
			out["error"] = err.Error()
		}
	}
	return out
}
