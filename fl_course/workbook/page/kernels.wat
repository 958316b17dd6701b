;; The three kernels of network.js with SIMD: 16 float32 at a time, or 4 where a sum runs along a row. Built by tools/build_kernels.py.
;; Positions come in numbers, memory is addressed in bytes: << 2.
(module
  (import "js" "memory" (memory 1))

  ;; z = sum of value·row over the list: n row offsets from $rows, n values from $values
  (func (export "forward") (param $w i32) (param $rows i32) (param $values i32) (param $n i32) (param $z i32) (param $width i32)
    (local $o i32) (local $r i32) (local $v i32) (local $end i32) (local $row i32) (local $x v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $rows (i32.shl (local.get $rows) (i32.const 2)))
    (local.set $values (i32.shl (local.get $values) (i32.const 2)))
    (local.set $end (i32.add (local.get $rows) (i32.shl (local.get $n) (i32.const 2))))
    (loop $block                                                 ;; 16 outputs, from $o on
      (local.set $a (v128.const f32x4 0 0 0 0)) (local.set $b (v128.const f32x4 0 0 0 0))
      (local.set $c (v128.const f32x4 0 0 0 0)) (local.set $d (v128.const f32x4 0 0 0 0))
      (local.set $r (local.get $rows)) (local.set $v (local.get $values))
      (loop $entry
        (local.set $row (i32.shl (i32.add (i32.add (local.get $w) (i32.load (local.get $r))) (local.get $o)) (i32.const 2)))
        (local.set $x (v128.load32_splat (local.get $v)))
        (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $x) (v128.load (local.get $row)))))
        (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $x) (v128.load offset=16 (local.get $row)))))
        (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $x) (v128.load offset=32 (local.get $row)))))
        (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $x) (v128.load offset=48 (local.get $row)))))
        (local.set $v (i32.add (local.get $v) (i32.const 4)))
        (br_if $entry (i32.lt_u (local.tee $r (i32.add (local.get $r) (i32.const 4))) (local.get $end))))
      (local.set $row (i32.shl (i32.add (local.get $z) (local.get $o)) (i32.const 2)))
      (v128.store (local.get $row) (local.get $a)) (v128.store offset=16 (local.get $row) (local.get $b))
      (v128.store offset=32 (local.get $row) (local.get $c)) (v128.store offset=48 (local.get $row) (local.get $d))
      (br_if $block (i32.lt_u (local.tee $o (i32.add (local.get $o) (i32.const 16))) (local.get $width)))))

  ;; out[unit of the row] = row·e, for the n rows of the list
  (func (export "backward") (param $w i32) (param $rows i32) (param $n i32) (param $e i32) (param $width i32) (param $out i32)
    (local $o i32) (local $end i32) (local $a v128)
    (if (i32.eqz (local.get $n)) (then (return)))
    (local.set $rows (i32.shl (local.get $rows) (i32.const 2)))
    (local.set $end (i32.add (local.get $rows) (i32.shl (local.get $n) (i32.const 2))))
    (loop $entry
      (local.set $a (v128.const f32x4 0 0 0 0)) (local.set $o (i32.const 0))
      (loop $four
        (local.set $a (f32x4.add (local.get $a) (f32x4.mul
          (v128.load (i32.shl (i32.add (i32.add (local.get $w) (i32.load (local.get $rows))) (local.get $o)) (i32.const 2)))
          (v128.load (i32.shl (i32.add (local.get $e) (local.get $o)) (i32.const 2))))))
        (br_if $four (i32.lt_u (local.tee $o (i32.add (local.get $o) (i32.const 4))) (local.get $width))))
      (f32.store (i32.shl (i32.add (local.get $out) (i32.div_u (i32.load (local.get $rows)) (local.get $width))) (i32.const 2))
        (f32.add (f32.add (f32x4.extract_lane 0 (local.get $a)) (f32x4.extract_lane 1 (local.get $a)))
                 (f32.add (f32x4.extract_lane 2 (local.get $a)) (f32x4.extract_lane 3 (local.get $a)))))
      (br_if $entry (i32.lt_u (local.tee $rows (i32.add (local.get $rows) (i32.const 4))) (local.get $end)))))

  ;; row += scale·value·e, for the rows of the list
  (func (export "update")
    (param $w i32) (param $rows i32) (param $values i32) (param $n i32) (param $e i32) (param $width i32) (param $scale f32)
    (local $o i32) (local $r i32) (local $v i32) (local $end i32) (local $row i32) (local $x v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $rows (i32.shl (local.get $rows) (i32.const 2)))
    (local.set $values (i32.shl (local.get $values) (i32.const 2)))
    (local.set $end (i32.add (local.get $rows) (i32.shl (local.get $n) (i32.const 2))))
    (loop $block
      (local.set $row (i32.shl (i32.add (local.get $e) (local.get $o)) (i32.const 2)))
      (local.set $x (f32x4.splat (local.get $scale)))
      (local.set $a (f32x4.mul (local.get $x) (v128.load (local.get $row))))
      (local.set $b (f32x4.mul (local.get $x) (v128.load offset=16 (local.get $row))))
      (local.set $c (f32x4.mul (local.get $x) (v128.load offset=32 (local.get $row))))
      (local.set $d (f32x4.mul (local.get $x) (v128.load offset=48 (local.get $row))))
      (local.set $r (local.get $rows)) (local.set $v (local.get $values))
      (loop $entry
        (local.set $row (i32.shl (i32.add (i32.add (local.get $w) (i32.load (local.get $r))) (local.get $o)) (i32.const 2)))
        (local.set $x (v128.load32_splat (local.get $v)))
        (v128.store (local.get $row) (f32x4.add (v128.load (local.get $row)) (f32x4.mul (local.get $x) (local.get $a))))
        (v128.store offset=16 (local.get $row) (f32x4.add (v128.load offset=16 (local.get $row)) (f32x4.mul (local.get $x) (local.get $b))))
        (v128.store offset=32 (local.get $row) (f32x4.add (v128.load offset=32 (local.get $row)) (f32x4.mul (local.get $x) (local.get $c))))
        (v128.store offset=48 (local.get $row) (f32x4.add (v128.load offset=48 (local.get $row)) (f32x4.mul (local.get $x) (local.get $d))))
        (local.set $v (i32.add (local.get $v) (i32.const 4)))
        (br_if $entry (i32.lt_u (local.tee $r (i32.add (local.get $r) (i32.const 4))) (local.get $end))))
      (br_if $block (i32.lt_u (local.tee $o (i32.add (local.get $o) (i32.const 16))) (local.get $width))))))
