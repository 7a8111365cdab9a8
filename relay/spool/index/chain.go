package index

import (
	"encoding/binary"
	"fmt"
)

// Damage of badger's list of tables, or of the log of a table in memory, looks
// to badger like a write that never finished: it cuts it off. At the very end
// that is harmless, for the index then is that of an earlier moment and says so.
// In the middle it would take transactions away that later ones stand upon, and
// nothing would show. So each transaction leaves its number in a ring, and Open
// wants the last ones to be there without a gap. The ring is longer than the
// transactions that two tables in memory can hold: whatever is cut off is in it.
const chainLength = 1 << 17

// tableChain is the ring:
//
//	chain     number modulo chainLength 4                  number 8
const tableChain byte = 64

func link(txn Transaction, number uint64) error {
	key := binary.BigEndian.AppendUint32([]byte{tableChain}, uint32(number%chainLength))
	return txn.Set(key, binary.BigEndian.AppendUint64(nil, number))
}

// firstTransaction is the number of the first one of an index.
const firstTransaction = 2

// checkChain wants every transaction up to last to be there, as far back as the
// ring goes.
func (s *Store) checkChain(last uint64) error {
	v := s.View()
	defer v.Close()
	var there uint64
	err := v.Each([]byte{tableChain}, func(key, value []byte) error {
		slot, number := uint64(binary.BigEndian.Uint32(key[1:])), binary.BigEndian.Uint64(value)
		if number%chainLength != slot || number > last {
			return fmt.Errorf("%w: transaction %d stands at place %d, the last one is %d", ErrDamaged, number, slot, last)
		}
		if number+chainLength > last {
			there++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if want := min(last+1-firstTransaction, chainLength); there != want {
		return fmt.Errorf("%w: of the last %d transactions %d are missing", ErrDamaged, want, want-there)
	}
	return nil
}
